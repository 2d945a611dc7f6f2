"""Which SQL a running release survives, and what is said of it."""

import pytest
from coldframe.release.judge import judged, statements
from release_prepare import described, failure, refusal, wrong_names

SURVIVED = {
    "nullable column": ['ALTER TABLE "a" ADD COLUMN "b" integer NULL'],
    "column with a default in the database": ['ALTER TABLE "a" ADD COLUMN "b" integer DEFAULT 5 NOT NULL'],
    "generated column": ['ALTER TABLE "a" ADD COLUMN "b" integer GENERATED ALWAYS AS ("c" + 1) STORED NOT NULL'],
    "new table": [
        'CREATE TABLE "n" ("id" bigint NOT NULL PRIMARY KEY)',
        'ALTER TABLE "n" ADD CONSTRAINT "u" UNIQUE ("b")',
        'ALTER TABLE "n" ALTER COLUMN "b" SET NOT NULL',
        'CREATE INDEX "i" ON "n" ("b")',
        'ALTER TABLE "n" RENAME TO "m"',
        'ALTER TABLE "m" DROP COLUMN "b" CASCADE',
    ],
    "column that may be empty now": ['ALTER TABLE "a" ALTER COLUMN "b" DROP NOT NULL'],
    "default": ['ALTER TABLE "a" ALTER COLUMN "b" SET DEFAULT 5', 'ALTER TABLE "a" ALTER COLUMN "b" DROP DEFAULT'],
    "constraint that goes": ['ALTER TABLE "a" DROP CONSTRAINT "c"'],
    "words in a text": ["INSERT INTO a VALUES ('DROP TABLE x; ALTER TABLE a DROP COLUMN b')"],
    "words in a comment": ['-- DROP TABLE x\nALTER TABLE "a" ADD COLUMN "b" integer NULL /* DROP COLUMN */'],
}
FATAL = {
    "drop of a column": (['ALTER TABLE "a" DROP COLUMN "b" CASCADE'], "DROP_COLUMN"),
    "drop in small letters on two lines": (["alter table a\n  drop column b"], "DROP_COLUMN"),
    "drop without the word": (["alter table a drop b"], "DROP_COLUMN"),
    "drop after another statement": (["SELECT 1; drop table a"], "DROP_TABLE"),
    "drop of a table": (['DROP TABLE "a" CASCADE'], "DROP_TABLE"),
    "drop of a view": (["drop view a"], "DROP_OTHER"),
    "all rows gone": (["truncate a"], "DROP_OTHER"),
    "renamed column": (['ALTER TABLE "a" RENAME COLUMN "b" TO "c"'], "RENAME_COLUMN"),
    "renamed without the word": (["alter table a rename b to c"], "RENAME_COLUMN"),
    "renamed table": (['ALTER TABLE "a" RENAME TO "b"'], "RENAME_TABLE"),
    "default only for the rows there are": (
        ['ALTER TABLE "a" ADD COLUMN "b" integer DEFAULT 0 NOT NULL', 'ALTER TABLE "a" ALTER COLUMN "b" DROP DEFAULT'],
        "NOT_NULL",
    ),
    "no more NULL": (['ALTER TABLE "a" ALTER COLUMN "b" SET NOT NULL'], "SET_NOT_NULL"),
    "another type": (['ALTER TABLE "a" ALTER COLUMN "b" TYPE bigint USING "b"::bigint'], "ALTER_COLUMN"),
    "unique": (['ALTER TABLE "a" ADD CONSTRAINT "u" UNIQUE ("b")'], "ADD_UNIQUE"),
    "check": (['ALTER TABLE "a" ADD CONSTRAINT "c" CHECK ("b" > 0)'], "ADD_CONSTRAINT"),
    "block": (["DO $$ BEGIN EXECUTE 'x'; END $$"], "RUNS_BLOCK"),
}


@pytest.mark.parametrize("case", SURVIVED)
def test_what_a_running_release_survives(case):
    assert judged(SURVIVED[case], set())[0] == {}


@pytest.mark.parametrize("case", FATAL)
def test_what_it_does_not(case):
    sql, code = FATAL[case]
    assert list(judged(sql, set())[0]) == [code]


def test_column_at_fault_is_named_and_a_code_may_be_left_out():
    sql = ['ALTER TABLE "a" ALTER COLUMN "b" TYPE varchar(9)']
    assert judged(sql, set())[0]["ALTER_COLUMN"].endswith("(a.b)")
    assert judged(sql, set(), ["ALTER_COLUMN"])[0] == {}


def test_index_on_a_table_in_use_is_worth_a_word():
    assert judged(['CREATE INDEX "i" ON "a" ("b")'], set()) == ({}, ["CREATE INDEX locks table"])
    assert judged(['CREATE INDEX CONCURRENTLY "i" ON "a" ("b")'], set()) == ({}, [])


def test_statements_keep_quoted_names_and_no_text():
    assert list(statements("alter table \"Ab\"\n drop c; select 'x''y'")) == [
        'ALTER TABLE "Ab" DROP C;',
        "SELECT ''",
    ]


PLAN = [
    {"migration": "blog.0002_a", "atomic": True, "operations": ["Add field a to post"]},
    {"migration": "blog.0003_b", "atomic": False, "operations": ["Remove field b from post", "Raw SQL operation"]},
]


def test_refusal_names_migration_operation_reason_and_both_ways_out():
    item = {"migration": "blog.0003_b", "operation": "Remove field b from post", "reason": "drops it", "fatal": True}
    said = refusal({"plan": PLAN, "refused": [item, item | {"operation": "Raw SQL operation"}]}, "0a1b")
    assert "release 0a1b could not survive 1 of the 2 unapplied" in said
    assert "blog.0003_b: Remove field b from post: drops it" in said
    assert "release_allow_migrations: [blog.0003_b]\n" in said and "ALLOW_MIGRATIONS=blog.0003_b" in said
    assert "contract later" in said


def failed(step, applied=(), lock=False, kind="ProgrammingError", text="the last line", **more):
    error = {"type": kind, "text": text, "lock": lock}
    result = {"step": step, "command": "", "plan": PLAN, "applied": list(applied), "done": {}, "invalid": []}
    return failure(result | {"error": error} | more, 7)


def test_failed_migration_is_named_with_what_was_applied_and_what_not():
    said = failed("migrate", ["blog.0002_a"])
    assert "The migration blog.0003_b failed" in said and "the last line" in said
    assert "Applied before it: blog.0002_a." in said and "Not applied: blog.0003_b." in said
    assert "It is not atomic, so it was not taken back. Done: nothing. Failed: Remove field b from post." in said
    assert "Not begun: Raw SQL operation" in said and "waited for a lock" not in said
    assert "not atomic" not in failed("migrate")
    assert "not migrated to the end" in failed("migrate", [m["migration"] for m in PLAN])
    assert "not migrated to the end" in failed("migrate", kind="CommandError")


def test_lock_that_did_not_come_is_said_with_its_variable():
    assert "longer than release_migration_lock_timeout, 7 s" in failed("migrate", lock=True)


@pytest.mark.parametrize("step", ["load", "check", "static", "plan", "judge"])
def test_failure_before_the_database_is_touched(step):
    assert "what ran before was left running.\nthe last line" in failed(step)


def test_plan_is_written_for_people():
    assert described(PLAN).splitlines()[2:4] == ["blog.0003_b", "    Remove field b from post"]


def test_names():
    assert wrong_names(["blog.0002_a", "a b.0001", "blog"]) == ["a b.0001", "blog"]
