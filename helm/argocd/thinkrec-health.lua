-- SPDX-License-Identifier: Apache-2.0
-- Argo CD's health of a ThinkRecModel or a ThinkRecExperiment, from its conditions; agrees with kstatus (Flux, kubectl).
local health = {}
local status = obj.status
if status == nil or status.conditions == nil or status.observedGeneration == -1 then
  health.status = "Progressing"
  health.message = "The operator has not seen it yet"
  return health
end
if status.observedGeneration ~= obj.metadata.generation then
  health.status = "Progressing"
  health.message = "The operator has not seen the newest spec yet"
  return health
end

local by_type = {}
for _, condition in ipairs(status.conditions) do
  if condition.status == "True" or condition.type == "Ready" then
    by_type[condition.type] = condition
  end
end
local function tell(verdict, condition)
  health.status = verdict
  health.message = condition.reason
  if condition.message ~= nil and condition.message ~= "" then
    health.message = condition.reason .. ": " .. condition.message
  end
  return health
end

if by_type.Stalled ~= nil then
  return tell("Degraded", by_type.Stalled)
end
if by_type.Reconciling ~= nil then
  return tell("Progressing", by_type.Reconciling)
end
if by_type.Ready == nil then
  health.status = "Progressing"
  health.message = "The operator has not said yet whether it is ready"
  return health
end
-- Ready before Suspended: what serves as its spec says must not hold up a sync wave because no retraining is wanted.
if by_type.Ready.status == "True" then
  return tell("Healthy", by_type.Ready)
end
if by_type.Suspended ~= nil then
  return tell("Suspended", by_type.Suspended)
end
return tell("Progressing", by_type.Ready)
