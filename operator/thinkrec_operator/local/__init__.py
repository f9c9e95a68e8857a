# SPDX-License-Identifier: Apache-2.0
"""The driver without a cluster: the same decision, with subprocesses for Jobs and a folder for the apiserver.

    state, records   what is kept on disk, written atomically; everything is rebuilt from it after a crash
    retry            pure: what the end of an attempt means, as a Job's back-off limit and failure policy have it
    launch           the few lines that run in a child before it becomes the stage
    budget           pure: which waiting Jobs may start without using more CPUs than there are
    jobs, serving    processes: stages, and the server
    materials        what the server needs, in place or fetched;  environment: what a process finds in its own
    store            what a `file:` store already holds
    find             the servers that run here
    observe          state folder -> Observed
    driver           the loop: observe, reconcile, apply;  outcome: how it ends;  signals: how it
                     rests, and Ctrl-C
    experiment       the same loop for an experiment's offline comparison
    progress, view   progress lines; the live tree, or JSON lines

`print` is for cli/; here a view gets told what happened.
"""
