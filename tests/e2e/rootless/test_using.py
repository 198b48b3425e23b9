"""What an ordinary user does with containers, images and networks, as root would."""

from tests.support.users import User


def test_the_working_directory_stays(user: User) -> None:
    user.run("mkdir", "-p", "work")
    result = user.run("sh", "-c", "cd work && echo told > file && ketch run --rm --network none"
                      " -v ./file:/file busybox cat /file")  # fmt: skip
    assert (result.status, result.out) == (0, "told\n"), str(result)


def test_a_directory_made_anew_hides_what_the_image_has_there(user: User) -> None:
    ketch = user.ketch
    ketch.ok("run", "--name", "emptied", "busybox", "sh", "-c",
             "rm -r /etc/shadow /root && mkdir /root && touch /root/new")  # fmt: skip
    ketch.ok("commit", "--pause=false", "emptied", "emptied")
    ketch.ok("rm", "emptied")
    assert (
        ketch.ok("run", "--rm", "emptied", "sh", "-c", "ls -A /root; ls /etc/shadow || true")
        == "new"
    )
    ketch.ok("rmi", "emptied")


def test_containers_of_a_network_know_each_other_by_name(user: User) -> None:
    ketch = user.ketch
    ketch.ok("network", "create", "inner")
    ketch.ok(
        "run", "--detach", "--name", "server", "--network", "inner", "busybox", "sleep", "1000"
    )
    try:
        told = ketch.ok("run", "--rm", "--network", "inner", "busybox", "ping", "-c1", "server")
        assert "1 packets received" in told
    finally:
        ketch.ok("rm", "--force", "server")
        ketch.ok("network", "rm", "inner")


def test_the_hosts_network_is_the_machines(user: User) -> None:
    own = user.run("readlink", "/proc/self/ns/net").out
    inside = user.ketch.ok("run", "--rm", "--network", "host", "busybox", "readlink",
                           "/proc/self/ns/net")  # fmt: skip
    assert inside == own.strip()


def test_killed_holder_and_zygote_cost_no_container_anything(user: User) -> None:
    ketch = user.ketch
    ketch.ok("run", "--detach", "--name", "server", "busybox", "sleep", "1000")
    try:
        names = "for p in $(pgrep -u $(id -u) 'ketch-(holder|zygote|names)'); do kill -9 $p; done"
        assert user.run("sh", "-c", names).status == 0
        assert "Up" in ketch.ok("ps", "--filter", "name=server")
        assert "1 packets received" in ketch.ok("run", "--rm", "busybox", "ping", "-c1", "server")
        assert ketch.ok("exec", "server", "echo", "here") == "here"
    finally:
        ketch.ok("rm", "--force", "server")


def test_an_image_is_built(user: User) -> None:
    dockerfile = "FROM busybox\\nRUN id -u > /built\\n"
    script = f"mkdir -p context && cd context && printf '{dockerfile}' > Dockerfile"
    assert user.run("sh", "-c", f"{script} && ketch build -q -t built .").status == 0
    assert user.ketch.ok("run", "--rm", "--network", "none", "built", "cat", "/built") == "0"
    user.ketch.ok("rmi", "built")


def test_what_needs_root_is_refused_by_name(user: User) -> None:
    if user.run("test", "-e", "/sys/fs/cgroup/cgroup.controllers").status:
        limited = user.ketch("run", "--rm", "-m", "64m", "busybox", "true")
        assert limited.status == 125
        assert "a limit of memory" in limited.err
    assert user.ketch.ok("ps", "-a", "-q") == ""
