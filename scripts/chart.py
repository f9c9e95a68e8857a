# SPDX-License-Identifier: Apache-2.0
"""Write what the Helm chart and the GitOps examples take from elsewhere: definitions, values, the Argo CD health check.

python scripts/chart.py            # write
python scripts/chart.py --check    # only say what is stale
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from thinkrec_crds import group
from thinkrec_crds.markdown import code, table
from thinkrec_crds.schema import KINDS

ROOT = Path(__file__).resolve().parents[1]
CHART = ROOT / "helm" / "thinkrec"
HEALTH_CHECK = ROOT / "helm" / "argocd" / "thinkrec-health.lua"
ARGOCD_PATCH = ROOT / "examples" / "gitops" / "argocd" / "argocd-cm.yaml"
COMMAND = "python scripts/chart.py"
BEGIN, END = f"<!-- values: made by `{COMMAND}` -->", "<!-- end of values -->"

_HEAD = f"""{{{{- /* DO NOT EDIT: made from crds/ by `{COMMAND}`. */ -}}}}
{{{{- if .Values.crds.install }}}}
"""
_METADATA = """  labels: {{- include "thinkrec.commonLabels" . | nindent 4 }}
  {{- if .Values.crds.keep }}
  annotations:
    helm.sh/resource-policy: keep
  {{- end }}
spec:
"""


def definition_template(text: str) -> str:
    """Return a definition as a template: behind its flag, with the chart's labels, kept at an uninstall."""
    before, spec, after = escaped(text).partition("\nspec:\n")
    if not spec or after.startswith(spec):
        raise ValueError("a definition must have one `spec:` at the start of a line")
    return f"{_HEAD}{before}\n{_METADATA}{after}{{{{- end }}}}\n"


def escaped(text: str) -> str:
    """Return text that a template prints as it is."""
    return text.replace("{{", '{{ "{{" }}')


def values_table(schema: Mapping[str, Any], values: Mapping[str, Any]) -> str:
    """Return the Markdown table of every value: its path, type, default and meaning."""
    rows = [
        (code(path), _type(field), code(json.dumps(default)), field["description"])
        for path, field, default in leaves(schema, values)
    ]
    return table(("Value", "Type", "Default", "Meaning"), rows)


def leaves(
    schema: Mapping[str, Any], values: Mapping[str, Any], path: str = ""
) -> Iterator[tuple[str, Mapping[str, Any], Any]]:
    """Yield each value that has no named members of its own, as (path, schema, default), in the schema's order."""
    for name, field in schema["properties"].items():
        here = f"{path}.{name}" if path else name
        if "properties" in field and "default" not in field:
            yield from leaves(field, values.get(name, {}), here)
        elif name != "global":
            yield here, field, values.get(name)


def _type(field: Mapping[str, Any]) -> str:
    if "enum" in field:
        return " | ".join(field["enum"])
    if field["type"] == "array":
        return f"list of {field['items'].get('type', 'object')}s"
    bounds = [f"{field[key]:g}" for key in ("minimum", "maximum") if key in field]
    return f"{field['type']} {' to '.join(bounds)}".strip()


def argocd_patch(check: str) -> str:
    """Return the patch of Argo CD's settings that makes it judge our kinds by the check."""
    indented = "".join(f"    {line}" if line.strip() else line for line in check.splitlines(keepends=True))
    entries = [f"  resource.customizations.health.{group.GROUP}_{kind.kind}: |\n{indented}" for kind in KINDS]
    return (
        "# SPDX-License-Identifier: Apache-2.0\n"
        f"# DO NOT EDIT: made from helm/argocd/{HEALTH_CHECK.name} by `{COMMAND}`.\n"
        f"data:\n{''.join(entries)}"
    )


def rendered() -> dict[Path, str]:
    """Return the path and the text of every generated file of the chart."""
    files = {
        CHART / "templates" / "crds" / f"{kind.singular}.yaml": definition_template(
            (ROOT / "crds" / f"{kind.singular}.yaml").read_text("utf-8")
        )
        for kind in KINDS
    }
    readme = CHART / "README.md"
    patch = argocd_patch(HEALTH_CHECK.read_text("utf-8"))
    return files | {readme: _with_table(readme.read_text("utf-8")), ARGOCD_PATCH: patch}


def _with_table(page: str) -> str:
    """Return the page with the table between its two marks made anew."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"helm/thinkrec/README.md must hold the lines {BEGIN} and {END}")
    schema = json.loads((CHART / "values.schema.json").read_text("utf-8"))
    values = yaml.safe_load((CHART / "values.yaml").read_text("utf-8"))
    return f"{before}{BEGIN}\n\n{values_table(schema, values)}\n\n{END}{after}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Write or check the files; return the exit status."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when a file is stale")
    check = parser.parse_args(arguments).check
    stale = {path: text for path, text in rendered().items() if not path.exists() or path.read_text("utf-8") != text}
    for path, text in stale.items():
        if not check:
            path.write_text(text, encoding="utf-8")
        sys.stderr.write(f"{path.relative_to(ROOT)} {f'is stale: run `{COMMAND}`' if check else 'written'}\n")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
