//! `refresher doctor`: what is wrong with an installation, worst first, each with its cure.

mod checks;

use std::net::SocketAddr;
use std::sync::Arc;

use clap::Args;
use serde::Serialize;

use self::checks::{CHECKS, unseen};
use super::output::Out;
use super::{Exit, Json, Result, number};
use crate::app::Options;
use crate::app::doctor::{Facts, Scope, gather};
use crate::clock::SystemClock;

/// Flags of `doctor`.
#[derive(Debug, Args)]
pub struct Doctor {
    /// The address that callers connect to [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDRESS", value_parser = address)]
    gateway: Option<SocketAddr>,
    /// Ask no platform for the time
    #[arg(long)]
    offline: bool,
    #[command(flatten)]
    json: Json,
}

/// An address, also as people copy it from a base URL.
fn address(text: &str) -> std::result::Result<SocketAddr, String> {
    let bare = text.trim_start_matches("http://").trim_end_matches('/');
    let local = bare.strip_prefix("localhost:");
    let bare = local.map_or_else(|| bare.to_owned(), |port| format!("127.0.0.1:{port}"));
    number::parsed(&bare, "an IP address and a port, like 127.0.0.1:8080")
}

/// The weight of a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
enum Severity {
    /// Nothing works before it is mended.
    Broken,
    /// A part does not work, or will soon not.
    Wrong,
    /// Good to know.
    Note,
}

/// Something that a person should see to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Finding {
    severity: Severity,
    /// The check that found it, a word for machines.
    check: &'static str,
    /// The problem, as a sentence without a full stop.
    problem: String,
    /// The cure, as a clause; a command in it stands behind a colon.
    cure: Option<String>,
}

impl Doctor {
    /// Looks, and prints what it found.
    ///
    /// # Errors
    /// If nobody can be told.
    pub async fn run(self, options: Options, out: &Out) -> Result<Exit> {
        let scope = Scope {
            gateway: self.gateway,
            is_offline: self.offline,
        };
        let variable = |name: &str| std::env::var_os(name);
        let facts = gather(options, scope, variable, Arc::new(SystemClock)).await;
        self.tell(&facts, out)
    }

    fn tell(&self, facts: &Facts, out: &Out) -> Result<Exit> {
        let findings = findings(facts);
        match self.json.json {
            true => out.print_json(&serde_json::json!({
                "state_dir": facts.state_dir,
                "findings": findings,
                "not_looked_at": unseen(facts),
            }))?,
            false => out.print(&text(&findings, &unseen(facts)))?,
        }
        let is_well = findings.iter().all(|one| one.severity == Severity::Note);
        Ok(if is_well {
            Exit::Done
        } else {
            Exit::NeedsSomebody
        })
    }
}

/// All findings, worst first, else in the order of the checks.
fn findings(facts: &Facts) -> Vec<Finding> {
    let mut findings: Vec<Finding> = CHECKS.iter().flat_map(|check| check(facts)).collect();
    findings.sort_by_key(|one| one.severity);
    findings
}

/// Findings for people.
fn text(findings: &[Finding], unseen: &[String]) -> String {
    let one = |finding: &Finding| {
        let word = match finding.severity {
            Severity::Broken => "BROKEN",
            Severity::Wrong => "WRONG",
            Severity::Note => "NOTE",
        };
        let cure = finding.cure.as_ref();
        let cure = cure.map(|cure| format!("  cure  {cure}\n"));
        format!(
            "{word:6}  {}\n{}",
            finding.problem,
            cure.unwrap_or_default()
        )
    };
    let mut text: String = findings.iter().map(one).collect();
    for unseen in unseen {
        text += &format!("        not looked at: {unseen}\n");
    }
    let count = |severity| {
        findings
            .iter()
            .filter(|one| one.severity == severity)
            .count()
    };
    let (broken, wrong) = (count(Severity::Broken), count(Severity::Wrong));
    let sum = match broken + wrong {
        0 => "Nothing is wrong.\n".to_owned(),
        _ => format!("{broken} broken, {wrong} wrong.\n"),
    };
    text + &sum
}

#[cfg(test)]
mod tests;
