"""The keywords of ``run``, ``create`` and ``update``, for type checkers.

Made from the table in ``spec/options.py`` by ``scripts/library_types.py``; change that, not this.
"""

from collections.abc import Iterable, Mapping
from typing import TypedDict

Amount = str | int | float
"""A number, or a text with a unit: ``"64m"``, ``"1.5s"``."""

Several = str | Iterable[str] | Mapping[str, object]
"""What may be given several times: one text, several, or a mapping for NAME=VALUE."""

Documents = Iterable[Mapping[str, object]]
"""Several of docker-py's types, which are mappings in the API's keys; or mappings like these."""


class RunOptions(TypedDict, total=False):
    """What ``run``, ``start`` and ``create`` know."""

    add_host: Several | None
    annotation: Several | None
    annotations: Several | None
    auto_remove: bool | None
    blkio_weight: Amount | None
    blkio_weight_device: Several | Documents | None
    cap_add: Several | None
    cap_drop: Several | None
    cgroup_parent: str | None
    cgroupns: str | None
    cpu_period: int | None
    cpu_quota: int | None
    cpu_rt_period: int | None
    cpu_rt_runtime: int | None
    cpu_shares: int | None
    cpus: Amount | None
    cpuset_cpus: str | None
    cpuset_mems: str | None
    device: Several | Documents | None
    device_cgroup_rule: Several | None
    device_cgroup_rules: Several | None
    device_read_bps: Several | Documents | None
    device_read_iops: Several | Documents | None
    device_requests: Documents | None
    device_write_bps: Several | Documents | None
    device_write_iops: Several | Documents | None
    devices: Several | Documents | None
    disable_content_trust: bool | None
    dns: Several | None
    dns_opt: Several | None
    dns_option: Several | None
    dns_search: Several | None
    domainname: str | None
    entrypoint: str | Iterable[str] | None
    env: Several | None
    env_file: Several | None
    environment: Several | None
    expose: Several | None
    extra_hosts: Several | None
    gidmap: Several | None
    gpus: Several | None
    group_add: Several | None
    health_cmd: str | None
    health_interval: Amount | None
    health_on_failure: str | None
    health_retries: int | None
    health_start_interval: Amount | None
    health_start_period: Amount | None
    health_timeout: Amount | None
    healthcheck: Mapping[str, object] | None
    hostname: str | None
    idle_timeout: int | None
    init: bool | None
    interactive: bool | None
    ip: str | None
    ip6: str | None
    ipc: str | None
    ipc_mode: str | None
    isolation: str | None
    kernel_memory: Amount | None
    label: Several | None
    label_file: Several | None
    labels: Several | None
    link: Several | None
    link_local_ip: Several | None
    links: Several | None
    log_config: Mapping[str, object] | None
    log_driver: str | None
    log_opt: Several | None
    mac_address: str | None
    mem_limit: Amount | None
    mem_reservation: Amount | None
    mem_swappiness: int | None
    memory: Amount | None
    memory_reservation: Amount | None
    memory_swap: Amount | None
    memory_swappiness: int | None
    memswap_limit: Amount | None
    mount: Several | None
    mounts: Documents | None
    name: str | None
    nano_cpus: int | None
    network: Several | None
    network_alias: Several | None
    network_disabled: bool | None
    network_mode: Several | None
    networking_config: Mapping[str, object] | None
    no_healthcheck: bool | None
    oom_kill_disable: bool | None
    oom_score_adj: int | None
    pid: str | None
    pid_mode: str | None
    pids_limit: int | None
    platform: str | None
    ports: Mapping[int, object] | Mapping[str, object] | None
    privileged: bool | None
    publish: Several | None
    publish_all: bool | None
    publish_all_ports: bool | None
    publish_default_ip: str | None
    pull: str | None
    read_only: bool | None
    remove: bool | None
    restart: str | None
    restart_policy: str | Mapping[str, object] | None
    rm: bool | None
    runtime: str | None
    security_opt: Several | None
    shm_size: Amount | None
    shmsize: Amount | None
    stdin_open: bool | None
    stop_signal: str | None
    stop_timeout: int | None
    storage_opt: Several | None
    sysctl: Several | None
    sysctls: Several | None
    systemd: str | None
    tmpfs: Several | None
    tty: bool | None
    uidmap: Several | None
    ulimit: Several | None
    ulimits: Several | Documents | None
    use_api_socket: bool | None
    user: str | int | None
    userns: str | None
    userns_mode: str | None
    uts: str | None
    uts_mode: str | None
    volume: Several | None
    volume_driver: str | None
    volumes: Several | Documents | None
    volumes_from: Several | Documents | None
    workdir: str | None
    working_dir: str | None


class UpdateOptions(TypedDict, total=False):
    """What ``Container.update`` knows."""

    blkio_weight: Amount | None
    cpu_period: int | None
    cpu_quota: int | None
    cpu_rt_period: int | None
    cpu_rt_runtime: int | None
    cpu_shares: int | None
    cpus: Amount | None
    cpuset_cpus: str | None
    cpuset_mems: str | None
    idle_timeout: int | None
    kernel_memory: Amount | None
    mem_limit: Amount | None
    mem_reservation: Amount | None
    memory: Amount | None
    memory_reservation: Amount | None
    memory_swap: Amount | None
    memswap_limit: Amount | None
    nano_cpus: int | None
    pids_limit: int | None
    restart: str | None
    restart_policy: str | Mapping[str, object] | None
    timeout: int | None


class BuildOptions(TypedDict, total=False):
    """What ``Images.build`` knows."""

    add_host: Several | None
    allow: Several | None
    annotation: Several | None
    annotations: Several | None
    attest: Several | None
    auto_remove: bool | None
    build_arg: Several | None
    build_args: Several | None
    build_context: Several | None
    buildargs: Several | None
    cache_from: Several | None
    cache_to: Several | None
    cgroup_parent: str | None
    contexts: Several | None
    cpu_period: int | None
    cpu_quota: int | None
    cpu_shares: int | None
    cpuset_cpus: str | None
    cpuset_mems: str | None
    extra_hosts: Several | None
    force_rm: bool | None
    forcerm: bool | None
    label: Several | None
    labels: Several | None
    load: bool | None
    mem_limit: Amount | None
    memory: Amount | None
    memory_swap: Amount | None
    memswap_limit: Amount | None
    network: str | None
    network_mode: str | None
    no_cache: bool | None
    no_cache_filter: Several | None
    nocache: bool | None
    output: Several | None
    platform: Several | None
    provenance: str | None
    pull: bool | None
    push: bool | None
    remove: bool | None
    rm: bool | None
    sbom: str | None
    shm_size: Amount | None
    shmsize: Amount | None
    squash: bool | None
    tag: Several | None
    target: str | None
    ulimit: Several | None
    ulimits: Several | Documents | None
