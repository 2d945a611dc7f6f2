"""Migrations of a deploy: shown, refused when the running release could not survive them, harmless when they fail.

These tests change the host, and leave it with its release and its schema.
"""

import json
import shutil
import textwrap
from pathlib import Path

import pytest
from support.playbooks import ROOT, deploy, output, restore
from support.units import current, running, wanted
from waits import wait_for

pytestmark = [pytest.mark.deploys, pytest.mark.one_host, pytest.mark.changes]

NULLABLE = 'migrations.AddField("order", "note", models.CharField(max_length=20, null=True))'
LAST = max(file.stem for file in (ROOT / "app_stub/orders/migrations").glob("[0-9]*.py"))  # of the application's own
COLUMN = "    note = models.CharField(max_length=20, null=True)\n"


@pytest.fixture
def variant(tmp_path):
    """Make variants of the application: further migrations, name to operation, and a line of its model."""

    def make(name, line="", **operations):
        folder = tmp_path / name
        shutil.copytree(ROOT / "app_stub", folder)
        before = LAST
        for migration, operation in operations.items():
            text = f"""
            from django.db import migrations, models

            def fail(apps, editor):
                raise RuntimeError("the migration's own reason")

            class Migration(migrations.Migration):
                dependencies = [("orders", "{before}")]
                operations = [{operation}]
            """
            before = migration.removeprefix("m")
            (folder / f"orders/migrations/{before}.py").write_text(textwrap.dedent(text))
        models = folder / "orders/models.py"
        models.write_text(models.read_text().replace("    confirmed_at = ", line + "    confirmed_at = ", 1))
        return str(folder)

    return make


@pytest.fixture
def schema(host, deployment):
    """Tell the columns of the orders and the migrations that are applied."""

    def ask():
        query = (
            "SELECT attname FROM pg_attribute WHERE attrelid = 'orders_order'::regclass AND attnum > 0 AND NOT attisdropped"
            " UNION ALL SELECT name FROM django_migrations WHERE app = 'orders' ORDER BY 1"
        )
        return host.check_output(f"runuser -u postgres -- psql -AtXc %s {deployment.app_name}", query).split()

    return ask


@pytest.fixture
def restored(host, deployment, inventory, schema):
    """Give the host its release and its schema back, through the newest release on it, which knows the way."""
    app, before, columns = deployment.app_name, current(host, deployment.app_name), schema()
    yield before
    if schema() != columns:
        newest = host.check_output(f"ls -t /srv/{app}/releases").split()[0]
        result = host.run(f"{app}-manage --release {newest} migrate --no-input orders {LAST}")
        assert result.rc == 0, result.stderr
    if current(host, app) != before:
        restore(inventory, before)
    assert schema() == columns and current(host, app) == before


def test_column_comes_in_one_release_and_goes_in_another(host, deployment, inventory, variant, schema, restored):
    app, before = deployment.app_name, schema()
    expanded = variant("expanded", COLUMN, m1003_note=NULLABLE)
    result = deploy(inventory, app_source=expanded)
    assert result.returncode == 0, result.stdout
    assert "orders.1003_note: - Add field note to order" in output(result)
    assert set(schema()) - set(before) == {"note", "1003_note"}

    again = deploy(inventory, app_source=expanded)
    assert "changed=0 " in again.stdout and "Add field note" not in again.stdout, again.stdout

    old, shape = current(host, app), schema()
    contracted = variant("contracted", m1003_note=NULLABLE, m1004_gone='migrations.RemoveField("order", "note")')
    result = deploy(inventory, app_source=contracted)
    assert result.returncode != 0
    assert f"The running release {old} could not survive 1 of the 1 unapplied" in output(result), result.stdout
    assert "orders.1004_gone: Remove field note from order: drops a column" in output(result)
    assert "release_allow_migrations: [orders.1004_gone]" in output(result)
    assert schema() == shape and current(host, app) == old
    assert running(host, app) == wanted(deployment, old) and deployment.request("/readyz/").status == 200

    result = deploy(inventory, app_source=contracted, release_allow_migrations=["orders.1004_gone"])
    assert result.returncode == 0, result.stdout
    assert "orders.1004_gone: - Remove field note from order" in output(result)
    assert "note" not in schema() and current(host, app) != old


@pytest.mark.thorough
def test_refused_is_the_whole_plan_and_what_is_safe_is_not_accused(host, inventory, variant, schema, restored):
    before = schema()
    source = variant(
        "unsafe",
        m1003_note=NULLABLE,
        m1004_size='migrations.AddField("order", "size", models.IntegerField(default=0))',
        m1005_colour='migrations.AddField("order", "colour", models.IntegerField(default=0, db_default=0))',
        m1006_rows="migrations.RunPython(fail)",
    )
    result = deploy(inventory, app_source=source, release_check_ignore=["coldframe.E001"])
    assert result.returncode != 0
    assert "could not survive 1 of the 4 unapplied" in output(result), result.stdout
    assert "orders.1004_size: Add field size to order: makes a column NOT NULL that has no default" in output(result)
    assert "orders.1006_rows: Raw Python operation: runs Python code" in output(result)
    assert "release_allow_migrations: [orders.1004_size]" in output(result)
    assert schema() == before


def test_failing_migration_leaves_the_old_release_serving(host, deployment, inventory, variant, schema, restored):
    source = variant("failing", COLUMN, m1003_note=NULLABLE, m1004_rows="migrations.RunPython(fail)", m1005_more="")
    result = deploy(inventory, app_source=source)
    assert result.returncode != 0
    assert "The migration orders.1004_rows failed" in output(result), result.stdout
    assert "the migration's own reason" in output(result)
    assert "Applied before it: orders.1003_note. Not applied: orders.1004_rows, orders.1005_more." in output(result)
    assert "1003_note" in schema() and "1004_rows" not in schema()
    app = deployment.app_name
    assert running(host, app) == wanted(deployment, restored) and current(host, app) == restored
    assert deployment.request("/healthz/").json["release"] == restored


def test_migration_does_not_wait_long_for_a_lock(host, deployment, inventory, variant, schema, restored):
    before = schema()
    holder = "BEGIN; LOCK TABLE orders_order IN ACCESS SHARE MODE; SELECT pg_sleep(600)"
    host.check_output(
        f"systemd-run --quiet --collect --unit=lock-holder --uid=postgres psql -Xc %s {deployment.app_name}", holder
    )
    try:
        result = deploy(
            inventory, app_source=variant("waiting", COLUMN, m1003_note=NULLABLE), release_migration_lock_timeout=1
        )
    finally:
        # On the server: a backend that sleeps does not notice that its client has gone.
        end = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE relation = 'orders_order'::regclass"
        host.check_output(f"runuser -u postgres -- psql -Xc %s {deployment.app_name}", end)
    assert result.returncode != 0
    assert "The migration orders.1003_note failed" in output(result), result.stdout
    assert "longer than release_migration_lock_timeout, 1 s" in output(result)
    assert schema() == before and current(host, deployment.app_name) == restored


INDEXED = """
from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


class Migration(migrations.Migration):
    atomic = False
    dependencies = [("orders", "{last}")]
    operations = [
        AddIndexConcurrently("charge", models.Index(fields=["order"], name="first_idx")),
        AddIndexConcurrently("order", models.Index(fields=["sku"], name="second_idx")),
        migrations.RunSQL("CREATE UNIQUE INDEX CONCURRENTLY Third_Idx ON orders_order (id)", "DROP INDEX third_idx"),
    ]
"""


@pytest.fixture
def query(host, deployment):
    """Ask the application's database as its administrator."""
    return lambda sql: host.check_output(f"runuser -u postgres -- psql -AtXc %s {deployment.app_name}", sql)


@pytest.fixture
def writer(host, deployment, query):
    """Somebody's open transaction that has written to the orders; a function ends it."""
    # Idle: a statement under way would be waited for by an index on any table.
    hold = f"(echo 'BEGIN; LOCK TABLE orders_order IN ROW EXCLUSIVE MODE;'; sleep 600) | psql -X {deployment.app_name}"
    host.check_output("systemd-run --quiet --collect --unit=writer --uid=postgres sh -c %s", hold)
    locks = "SELECT count(*) FROM pg_locks WHERE relation = 'orders_order'::regclass AND mode = 'RowExclusiveLock'"
    wait_for(lambda: query(locks) == "1", 10, "the orders are locked")

    def end():
        host.run("systemctl stop writer")

    yield end
    end()


def test_index_that_was_cut_off_is_made_again_by_the_next_deploy(
    host, inventory, variant, schema, restored, query, writer
):
    """The first index is there then, the second one invalid; one that no migration makes is only named."""
    query("CREATE TABLE other (a int); INSERT INTO other VALUES (1), (1)")
    host.run(
        "runuser -u postgres -- psql -Xc 'CREATE UNIQUE INDEX CONCURRENTLY others_idx ON other (a)' {}".format(
            query("SELECT current_database()")
        )
    )
    source = variant("indexed")
    (Path(source) / "orders/migrations/1003_indexed.py").write_text(INDEXED.format(last=LAST))
    ignore = {"release_check_ignore": ["coldframe.E001"]}  # the models need not know of them here
    invalid = "SELECT c.relname, indisvalid FROM pg_index JOIN pg_class c ON c.oid = indexrelid WHERE relname LIKE '%_idx' AND (relname LIKE '%first%' OR relname LIKE 'second%' OR relname LIKE 'third%') ORDER BY 1"
    try:
        result = deploy(inventory, app_source=source, release_migration_lock_timeout=1, **ignore)
        assert result.returncode != 0
        text = output(result)
        assert "longer than release_migration_lock_timeout, 1 s" in text, result.stdout
        assert (
            "Done: Concurrently create index first_idx" in text
            and "Failed: Concurrently create index second_idx" in text
        )
        assert "public.second_idx on orders_order" in text and "an invalid index that it makes is dropped first" in text
        assert query(invalid).split() == ["first_idx|t", "second_idx|f"]
        writer()
        result = deploy(inventory, app_source=source, **ignore)
        assert result.returncode == 0, result.stdout
        assert "was dropped: public.second_idx on orders_order, which orders.1003_indexed makes" in output(result), (
            result.stdout
        )
        assert "was kept: first_idx on orders_charge" in output(result)
        assert "An invalid index is in the database" in output(result) and "public.others_idx on other" in output(
            result
        )
        assert query(invalid).split() == ["first_idx|t", "second_idx|t", "third_idx|t"]
    finally:
        query("DROP TABLE other")


def test_name_that_no_migration_has_is_refused(inventory):
    result = deploy(inventory, release_allow_migrations=["0003"])
    assert "release_allow_migrations[0] is '0003'; it must be app_label.migration_name" in output(result)
    assert "changed=0 " in result.stdout


JUDGED = {
    'AddField("order", "x", models.IntegerField(null=True))': False,
    'AddField("order", "x", models.IntegerField(db_default=5))': False,
    'AddField("order", "x", models.IntegerField(default=5))': True,
    'AddField("order", "x", models.ForeignKey("orders.Charge", models.CASCADE, null=True))': False,
    'AddField("order", "x", models.ManyToManyField("orders.Charge"))': False,
    'AddField("order", "x", models.GeneratedField(expression=models.F("quantity"), output_field=models.IntegerField(), db_persist=True))': False,
    'AlterField("order", "sku", models.CharField(max_length=99))': False,
    'AlterField("order", "sku", models.CharField(max_length=9))': True,
    'AlterField("order", "sku", models.TextField())': False,
    'AlterField("order", "quantity", models.PositiveSmallIntegerField(null=True))': False,
    'AlterField("order", "quantity", models.PositiveIntegerField())': True,
    'AlterField("order", "confirmed_at", models.DateTimeField(auto_now_add=True))': True,
    'AlterField("order", "sku", models.CharField(max_length=64, unique=True))': True,
    'AlterField("order", "task_id", models.UUIDField())': False,
    'AlterField("charge", "order", models.OneToOneField("orders.Order", models.CASCADE))': False,
    'RemoveField("order", "email")': True,
    'RenameField("order", "email", "mail")': True,
    'RenameModel("Heartbeat", "Beat")': True,
    'DeleteModel("Heartbeat")': True,
    'AlterModelTable("heartbeat", "beats")': True,
    'CreateModel("Thing", [("id", models.BigAutoField(primary_key=True)), ("order", models.ForeignKey("orders.Order", models.CASCADE))])': False,
    'AddIndex("order", models.Index(fields=["sku"], name="order_sku"))': False,
    'AddConstraint("order", models.CheckConstraint(condition=models.Q(quantity__gt=0), name="some"))': True,
    'AlterModelOptions("order", {"ordering": ["sku"]})': False,
    'SeparateDatabaseAndState([], [migrations.RemoveField("order", "email")])': False,
    'SeparateDatabaseAndState([migrations.RemoveField("order", "email")], [])': True,
    "SeparateDatabaseAndState([migrations.RunPython(migrations.RunPython.noop)], [])": True,
    'RunSQL("alter table orders_order drop email")': True,
    'RunSQL(["UPDATE orders_order SET sku = %s" % "\'DROP TABLE x\'"])': False,
    "RunPython(migrations.RunPython.noop)": False,
}


def test_operations_of_django_are_judged_by_the_sql_they_become(manage):
    """Needs the linter, which the deploys above have brought."""
    found = json.loads(
        manage(
            "import glob, json, sys; sys.path += glob.glob('/opt/migrations-*/lib/python*/site-packages')\n"
            "from django.db import connection, migrations, models\n"
            "from django.db.migrations.executor import MigrationExecutor\n"
            "from coldframe.release import judge\n"
            "answers = {}\n"
            f"for text in {list(JUDGED)!r}:\n"
            "    migration = migrations.Migration('0003_x', 'orders')\n"
            "    migration.operations = [eval('migrations.' + text)]\n"
            "    answers[text] = list(judge.findings(MigrationExecutor(connection), [migration]))\n"
            "print(json.dumps(answers))"
        )
    )
    wrong = {text: found[text] for text in JUDGED if any(each["fatal"] for each in found[text]) != JUDGED[text]}
    assert wrong == {}
