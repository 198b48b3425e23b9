# Lets ketch make user namespaces for ordinary users where AppArmor restricts that: Ubuntu 23.10
# and newer, kernel.apparmor_restrict_unprivileged_userns. It confines nothing.
#
#   install -m 644 apparmor.profile /etc/apparmor.d/ketch
#   apparmor_parser -r /etc/apparmor.d/ketch
#
# Whoever may write to one of these paths can make user namespaces by it. Where ketch is installed
# elsewhere (a virtual environment), add the path of its command here.

abi <abi/4.0>,
include <tunables/global>

@{ketch} = /usr/bin/ketch /usr/local/bin/ketch @{HOME}/.local/bin/ketch
@{ketch} += @{HOME}/.local/share/pipx/venvs/ketch/bin/ketch /opt/ketch/bin/ketch

profile ketch @{ketch}{,-oci} flags=(unconfined) {
  userns,
  include if exists <local/ketch>
}
