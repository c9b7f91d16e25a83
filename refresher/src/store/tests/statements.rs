//! The store's SQL, statement by statement: each is prepared on SQLite, and on PostgreSQL where that is installed.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use sqlx::{AssertSqlSafe, Executor, SqlSafeStr};

use super::fixture;
use crate::store;

/// Every module's statements.
fn statements() -> Vec<(String, &'static str)> {
    let modules = [
        ("store", store::STATEMENTS),
        ("accounts", store::accounts::STATEMENTS),
        ("accounts::removal", store::accounts::removal::STATEMENTS),
        ("accounts::saving", store::accounts::saving::STATEMENTS),
        ("accounts::settings", store::accounts::settings::STATEMENTS),
        ("batch", store::batch::STATEMENTS),
        ("client_keys", store::client_keys::STATEMENTS),
        ("egress", store::egress::STATEMENTS),
        ("envoys", store::envoys::STATEMENTS),
        ("quotas", store::quotas::STATEMENTS),
        ("health", store::health::STATEMENTS),
        ("health::reports", store::health::reports::STATEMENTS),
        ("homes", store::homes::STATEMENTS),
        ("ledger", store::ledger::STATEMENTS),
        ("limits", store::limits::STATEMENTS),
        ("login_ends", store::login_ends::STATEMENTS),
        ("logout", store::logout::STATEMENTS),
        ("pools", store::pools::STATEMENTS),
        ("publish", store::publish::STATEMENTS),
        ("probes", store::probes::STATEMENTS),
        ("requests", store::requests::STATEMENTS),
        ("rotate", store::rotate::STATEMENTS),
        ("switches", store::switches::STATEMENTS),
        ("snapshot", store::snapshot::STATEMENTS),
        ("found", store::sqlite::found::STATEMENTS),
        ("high_water", store::sqlite::high_water::STATEMENTS),
        ("new_tokens", store::sqlite::new_tokens::STATEMENTS),
        ("open", store::sqlite::open::STATEMENTS),
    ];
    let named = |(module, statements): (&'static str, &'static [(&'static str, &'static str)])| {
        let name = move |(name, sql): &(&str, &'static str)| (format!("{module}::{name}"), *sql);
        statements.iter().map(name)
    };
    modules.into_iter().flat_map(named).collect()
}

/// Every statement, those that insert many rows with two of them.
fn with_rows() -> Vec<(String, String)> {
    let statements = statements().into_iter();
    let mut all: Vec<(String, String)> = statements
        .map(|(name, sql)| (name, sql.to_owned()))
        .collect();
    for rows in [store::requests::RECORDS, store::limits::KEEP_DAY_COUNTS] {
        let columns = rows.insert.matches(',').count() + 1;
        let row = |first: usize| {
            let parameters: Vec<String> = (first..first + columns)
                .map(|number| format!("${number}"))
                .collect();
            format!("({})", parameters.join(", "))
        };
        let rows_of_two = format!(
            "{}VALUES {}, {}{}",
            rows.insert,
            row(1),
            row(1 + columns),
            rows.conflict
        );
        all.push((rows.insert.to_owned(), rows_of_two));
    }
    all
}

#[tokio::test]
async fn sqlite_takes_every_statement() {
    let fixture = fixture().await;
    for (name, sql) in with_rows() {
        let prepared = fixture
            .store
            .pool
            .prepare(AssertSqlSafe(sql).into_sql_str())
            .await;
        assert!(prepared.is_ok(), "{name}: {prepared:?}");
    }
}

/// A statement written where it is used would be prepared on no other database.
#[test]
fn no_statement_hides_from_these_tests() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/store");
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "rs") {
            continue;
        }
        let code: String = fs::read_to_string(&path).unwrap();
        let code = code.split_whitespace().collect::<String>();
        for hidden in [
            "query(\"",
            "query_as(\"",
            "query_scalar(\"",
            "AssertSqlSafe",
        ] {
            assert!(!code.contains(hidden), "{}: {hidden}", path.display());
        }
    }
}

#[tokio::test]
async fn postgresql_takes_every_statement() {
    let Some(programs) = postgresql() else {
        // Not by a macro: the test runner keeps what those print of a test that passes.
        let said = "SKIPPED, no PostgreSQL here: no statement was tried on it. Its programs are looked for in \
                    $LATCHKEY_TEST_PG_BIN and Debian's folders\n";
        std::io::stderr().write_all(said.as_bytes()).unwrap();
        return;
    };
    let fixture = fixture().await;
    let tables: Vec<(String, String)> = sqlx::query_as(
        "SELECT type, sql FROM sqlite_schema WHERE sql IS NOT NULL AND name NOT LIKE '%sqlx%' ORDER BY rowid",
    )
    .fetch_all(&fixture.store.pool)
    .await
    .unwrap();
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    give_away(folder.path());
    let made = as_anybody(&programs.join("initdb"))
        .args([
            "-A",
            "trust",
            "--no-locale",
            "-E",
            "UTF8",
            "--no-sync",
            "-D",
        ])
        .arg(&data)
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");

    // Without a server: one process that reads commands, each ended by a semicolon and an empty line.
    let mut session = as_anybody(&programs.join("postgres"))
        .args(["--single", "-j", "-F", "-D"])
        .arg(&data)
        .arg("postgres")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = session.stdin.take().unwrap();
    let mut send = |sql: &str| writeln!(input, "{sql};\n").unwrap();
    for (_, sql) in in_order(&tables) {
        send(&in_postgresql(sql));
    }
    for (number, (_, sql)) in with_rows().iter().enumerate() {
        send(&format!("PREPARE s{number} AS {sql}"));
    }
    send("PREPARE no_such AS SELECT 1 FROM no_such_table");
    drop(input);
    let output = session.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    let errors: Vec<&str> = said
        .lines()
        .filter(|line| line.contains("ERROR:"))
        .collect();
    assert!(
        errors.len() == 1 && errors[0].contains("no_such_table"),
        "{said}"
    );
}

/// Tables in an order in which each refers to earlier ones alone, then indexes.
fn in_order(tables: &[(String, String)]) -> Vec<&(String, String)> {
    let mut ordered: Vec<_> = tables.iter().collect();
    let refers = |sql: &str| match sql.matches("REFERENCES").count() {
        0 => 0,
        _ if sql.contains("health (account)") || sql.contains("\"health\" (account)") => 2,
        _ => 1,
    };
    ordered.sort_by_key(|(kind, sql)| (kind == "index", refers(sql)));
    ordered
}

/// A table of ours as PostgreSQL writes it.
fn in_postgresql(sql: &str) -> String {
    // A comment would go on to the end of the command.
    let code: Vec<&str> = sql
        .lines()
        .map(|line| line.split("--").next().unwrap_or_default())
        .collect();
    code.join(" ")
        .replace("INTEGER", "BIGINT")
        .replace("BLOB", "BYTEA")
        .replace("x''", "''")
        .replace(" STRICT, WITHOUT ROWID", "")
        .replace(" STRICT", "")
}

fn postgresql() -> Option<PathBuf> {
    let given = std::env::var_os("LATCHKEY_TEST_PG_BIN").map(PathBuf::from);
    let debians = fs::read_dir("/usr/lib/postgresql").ok();
    let debians = debians.into_iter().flatten().flatten();
    let debians = debians.map(|entry| entry.path().join("bin"));
    given
        .into_iter()
        .chain(debians)
        .find(|folder| folder.join("initdb").exists() && folder.join("postgres").exists())
}

/// PostgreSQL refuses to run as root.
fn as_anybody(program: &Path) -> Command {
    if !rustix::process::geteuid().is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid=nobody", "--regid=nogroup", "--clear-groups"])
        .arg(program)
        .current_dir("/");
    command
}

fn give_away(folder: &Path) {
    if rustix::process::geteuid().is_root() {
        let given = Command::new("chown").arg("nobody").arg(folder).status();
        assert!(given.unwrap().success());
    }
}
