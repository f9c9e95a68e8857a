# SPDX-License-Identifier: Apache-2.0
"""A real Kubernetes on this machine, without a container engine: for tests and for trying thinkrec.

    cli                 the command scripts/cluster
    choose              a named context, kind, or the embedded cluster
    cluster             one embedded cluster: start, load, restart parts, stop
    control_plane       etcd, API server, controller manager, scheduler
    node                containerd, kubelet, kube-proxy, DNS, in namespaces of their own
    holder              first process of those namespaces
    configuration       files of containerd, pod network and kubelet
    dns                 CoreDNS
    network, link       addresses; the link between this machine and the node
    cgroups             the node's control groups
    certificates        authority and certificates
    kubeconfig          kubeconfig files
    programs            find or build the Kubernetes programs
    addon_programs      find or build the controllers of JobSet and Kubeflow Trainer
    addons              run them beside a control plane, with their CRDs and webhooks
    dependencies        Debian packages: what is missing, and installing it
    base_images         pause image, a small shell, an empty tree; made without any tool
    images              the repository's Dockerfiles, with buildah
    mounted_environment pods that see this checkout's environment instead of an image
    processes           start, find and end processes
    guardian            removes a test's cluster when the test process ends, however that ends
    teardown            remove everything
    api                 a small client of the API server
    paths, locks, errors

Nothing of thinkrec is imported here, and thinkrec imports nothing from here.
"""
