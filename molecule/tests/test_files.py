"""Files that the application makes, and who may do what with them."""

import pytest
from support.playbooks import deploy
from support.units import current, instances

pytestmark = [pytest.mark.one_host, pytest.mark.group("web")]
# As code of a unit's: it makes folders with files in them, of which one is closed to everybody else.
MAKE = """
import os, sys
for folder in sys.argv[1:]:
    os.makedirs(folder + "/2026/11")
    for name in ("kept", "replaced", "deleted", "secret"):
        open(folder + "/2026/11/" + name, "w").write(name)
    os.chmod(folder + "/2026/11/secret", 0o600)
"""
# And as code of another unit's: write beside, append, replace, delete, make folders. It says what it can read then.
CHANGE = """
import os, shutil, sys
for maker in sys.argv[1:]:
    folder = maker + "/2026/11/"
    with open(folder + "kept", "a") as file: file.write(" and more")
    with open(folder + "beside", "w") as file: file.write("new")
    os.replace(folder + "beside", folder + "replaced")
    os.unlink(folder + "deleted")
    os.mkdir(folder + "below")
    with open(folder + "below/file", "w") as file: file.write("new")
    print([open(folder + name).read() for name in ("kept", "replaced")], sorted(os.listdir(folder)))
    try:
        open(folder + "secret")
        print(os.stat(folder + "secret").st_uid == os.getuid())
    except PermissionError:
        print(True)
    shutil.rmtree(maker)
"""
CHANGED = "['kept and more', 'new'] ['below', 'kept', 'replaced', 'secret']\nTrue"
UNITS = ("web", "worker", "beat", "manage")


@pytest.fixture
def media(host, deployment):
    """A folder for a test in MEDIA_ROOT, as the path on the host; its name is its address."""
    path = f"/srv/{deployment.app_name}/shared/media/test-files"
    host.check_output(f"rm -rf {path} && install -d -m 2775 -g {deployment.app_name} {path}")
    yield path
    host.check_output(f"rm -rf {path}")


@pytest.fixture
def run_as(host, deployment):
    """Run Python as a unit runs: its user, groups, umask and view of the file system."""

    def run(unit, code, *arguments):
        app = deployment.app_name
        if unit == "manage":
            program = f"import sys; sys.argv[1:] = {list(arguments)!r}\n{code}"
            return host.run(f"{app}-manage shell --no-imports --command %s", program)
        (name, *_) = instances(host, app, "worker-*" if unit == "worker" else unit, "active")
        kept = ["User", "Group", "SupplementaryGroups", "UMask", "ReadWritePaths", "ProtectSystem", "PrivateUsers"]
        kept += ["InaccessiblePaths"]
        shown = host.check_output(f"systemctl show --property={','.join(kept)} {name}").splitlines()
        properties = " ".join(f"--property='{line}'" for line in shown if not line.endswith("="))
        words = " ".join(arguments)
        return host.run(f"systemd-run --quiet --wait --collect --pipe {properties} python3 -c %s {words}", code)

    return run


def test_each_unit_may_change_what_another_made(host, deployment, media, run_as):
    if not {"workers", "beat"} <= set(deployment.group_names):
        pytest.skip("not all units run on this host")
    for maker in UNITS:
        made = run_as(maker, MAKE, *(f"{media}/{maker}-{other}" for other in UNITS))
        assert made.rc == 0, (maker, made.stdout + made.stderr)
    for other in UNITS:
        changed = run_as(other, CHANGE, *(f"{media}/{maker}-{other}" for maker in UNITS))
        assert changed.rc == 0, (other, changed.stdout + changed.stderr)
        assert changed.stdout.strip() == "\n".join([CHANGED] * len(UNITS)), other


@pytest.mark.example
def test_uploads_of_django_may_be_changed_by_others(host, deployment, manage, media):
    name = manage(
        "from django.core.files.storage import default_storage as s; from django.core.files.base import ContentFile as C; "
        "print(s.save('test-files/a/b.txt', C(b'1')))"
    )
    modes = host.check_output(f"stat --format='%a %G' {media}/a {media}/a/b.txt").splitlines()
    assert modes == [f"2775 {deployment.app_name}", f"664 {deployment.app_name}"], name


@pytest.mark.group("edge")
def test_nginx_reads_uploads_and_others_on_the_host_do_not(host, deployment, media, run_as):
    assert run_as("web", MAKE, f"{media}/made").rc == 0
    folder = f"{media}/made/2026/11"

    def as_user(user, command):
        return host.run(f"setpriv --reuid={user} --regid={user} --init-groups --no-new-privs sh -c %s", command)

    assert as_user("www-data", f"cat {folder}/kept").stdout == "kept"
    for command in (f"echo x >>{folder}/kept", f"touch {folder}/new", f"rm -f {folder}/kept", f"cat {folder}/secret"):
        assert as_user("www-data", command).rc != 0, command
    assert as_user("www-data", f"ls {media}/../..").rc != 0, "nothing else of shared/"
    assert host.run(f"setpriv --reuid=nobody --regid=nogroup --clear-groups cat {folder}/kept").rc != 0


@pytest.mark.changes
def test_what_was_closed_before_is_opened_once(host, deployment, media, inventory, run_as):
    app = deployment.app_name
    closed = MAKE.replace("import os, sys", "import os, sys\nos.umask(0o027)")
    assert run_as("worker", closed, f"{media}/old").rc == 0
    host.check_output(f"ln -s /etc/hostname {media}/old/2026/link")
    assert run_as("web", CHANGE, f"{media}/old").rc != 0
    host.check_output(f"rm -f /var/lib/coldframe/{app}/shared-open")
    hostname = host.check_output("stat --format='%a %G' /etc/hostname")
    assert deploy(inventory).returncode == 0
    result = run_as("web", CHANGE, f"{media}/old")
    assert (result.rc, result.stdout.strip()) == (0, CHANGED), result.stdout + result.stderr
    assert host.check_output("stat --format='%a %G' /etc/hostname") == hostname
    assert host.check_output(f"stat --format=%a /srv/{app}/shared")[-1] == "0"


@pytest.fixture(scope="module")
def folders(host, deployment, inventory):
    """Deploy with a data folder of all services, and one of a queue that has a switch and a destination too; return the queue."""
    app, queues = deployment.app_name, deployment.celery_queues
    queue, before = list(queues)[-1], current(host, app)
    own = {"writable": ["test-fonts"], "sandbox": ["writable_executable_memory"], "network": ["203.0.113.0/24"]}
    variables = {"app_writable": ["test-data"], "celery_queues": queues | {queue: queues[queue] | own}}
    result = deploy(inventory, **variables)
    assert result.returncode == 0, result.stdout
    host.check_output(f"touch /srv/{app}/shared/test-data/kept")
    yield queue
    result = deploy(inventory)
    assert result.returncode == 0 and current(host, app) == before, result.stdout
    assert host.file(f"/srv/{app}/shared/test-data/kept").exists, "the data stay, for a rollback and for a backup"
    host.check_output(f"rm -r /srv/{app}/shared/test-data /srv/{app}/shared/test-fonts")


@pytest.mark.changes
def test_data_folders_are_written_by_all_services_or_by_one(host, deployment, folders, run_as):
    if not {"workers", "beat"} <= set(deployment.group_names):
        pytest.skip("not all units run on this host")
    app, queue, (other, *_) = deployment.app_name, f"worker-{folders}", [*deployment.celery_queues]
    shared = f"/srv/{app}/shared"
    for folder in ("test-data", "test-fonts"):
        assert host.check_output(f"stat --format='%a %U %G' {shared}/{folder}") == f"2770 root {app}"
    for unit in ("web", "beat", "manage", f"worker-{other}", queue):
        made = run_as(unit, MAKE, f"{shared}/test-data/{unit}")
        assert made.rc == 0, (unit, made.stdout + made.stderr)
        listed = run_as(unit, "import os, sys; os.listdir(sys.argv[1])", f"{shared}/test-fonts")
        assert (listed.rc == 0) == (unit in (queue, "manage")), (unit, listed.stdout + listed.stderr)
    assert run_as(queue, MAKE, f"{shared}/test-fonts/made").rc == 0
    assert host.run(f"setpriv --reuid=www-data --regid=www-data --init-groups ls {shared}/test-data").rc != 0


@pytest.mark.changes
def test_options_of_a_queue_are_those_of_its_unit_alone(host, deployment, folders):
    if "workers" not in deployment.group_names:
        pytest.skip("no worker on this host")
    shown = {}
    for unit in instances(host, deployment.app_name, "worker-*", "active"):
        properties = "MemoryDenyWriteExecute,IPAddressAllow"
        lines = host.check_output(f"systemctl show --property={properties} {unit}").splitlines()
        shown[unit.partition("@")[0].rpartition("-")[2]] = dict(line.split("=", 1) for line in lines)
    assert shown.pop(folders) == {"MemoryDenyWriteExecute": "no", "IPAddressAllow": "203.0.113.0/24"}
    assert shown and all(unit["MemoryDenyWriteExecute"] == "yes" for unit in shown.values())
    assert all("203.0.113" not in unit["IPAddressAllow"] for unit in shown.values())
