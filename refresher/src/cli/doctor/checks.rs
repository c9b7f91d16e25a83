//! The checks: each looks at the facts, and says what is wrong and what to do about it. None of them asks anybody.

mod machine;
mod pool;

use latchkey::snapshot::Kind;

use super::Severity::{Note, Wrong};
use super::{Finding, Severity};
use crate::advice::{Door, cure};
use crate::app::declared::NotTaken;
use crate::app::doctor::Facts;
use crate::fault::Fault;

type Check = fn(&Facts) -> Vec<Finding>;

/// Every check, in the order in which a person mends things.
pub(super) const CHECKS: &[Check] = &[
    machine::faults,
    machine::disk,
    machine::serve,
    machine::socket,
    machine::clock,
    machine::clusters_file,
    machine::filter,
    machine::trusted_ca,
    machine::browser,
    machine::other_on_the_port,
    machine::escape,
    machine::envoys,
    machine::clusters_in_envoy,
    rotation,
    older_copy,
    left_out,
    terms,
    not_taken,
    pool::accounts,
    pool::ends,
    pool::keys,
    pool::pools,
    platforms_reached,
    unconfirmed,
];

fn finding(
    severity: Severity,
    check: &'static str,
    problem: impl Into<String>,
    cure: impl Into<String>,
) -> Finding {
    Finding {
        severity,
        check,
        problem: problem.into(),
        cure: Some(cure.into()),
    }
}

/// A finding, or none.
fn only(finding: Option<Finding>) -> Vec<Finding> {
    finding.into_iter().collect()
}

/// Returns what nobody could look at, and why.
pub(super) fn unseen(facts: &Facts) -> Vec<String> {
    let mut unseen = Vec::new();
    if facts.state.is_none() {
        unseen.push("accounts, pools and keys: the state cannot be opened".to_owned());
    }
    if facts.envoy.is_none() {
        unseen.push(
            "what Envoy has loaded: nothing answers at run/envoy-admin.sock in the state directory"
                .to_owned(),
        );
    }
    unseen
}

fn rotation(facts: &Facts) -> Vec<Finding> {
    let waits = facts
        .state
        .as_ref()
        .and_then(|state| state.overview.waiting_key);
    only(waits.map(|key| Finding {
        severity: Wrong,
        check: "key",
        problem: format!(
            "a new sealing key ({key}) seals nothing yet: a rotation was not finished"
        ),
        cure: cure(Door::CommandLine, &Fault::UnfinishedRotation),
    }))
}

fn older_copy(facts: &Facts) -> Vec<Finding> {
    only(facts.is_older_copy.then(|| {
        finding(
            Wrong,
            "state",
            "the database is an older copy: what was changed since is lost, and what was revoked or removed since is back",
            "put the newest copy back; where there is none, go on with this one, and revoke and remove again what is back \
             (docs/keys.md)",
        )
    }))
}

fn terms(facts: &Facts) -> Vec<Finding> {
    let unknown = facts.unknown_terms.iter().map(|platform| {
        finding(
            Note,
            "configuration",
            format!("config.toml acknowledges the terms of {platform}, and there is no such platform"),
            "correct its name in acknowledged_terms (refresher platforms list has them), and restart `refresher serve`",
        )
    });
    unknown.collect()
}

fn not_taken(facts: &Facts) -> Vec<Finding> {
    let of = |one: &NotTaken| {
        let NotTaken { account, why } = one;
        match why {
            Some(why) => finding(
                Wrong,
                "configuration",
                format!("account {account} of config.toml is not taken: {why}"),
                "correct that, and restart `refresher serve`",
            ),
            None => finding(
                Wrong,
                "configuration",
                format!(
                    "account {account} of config.toml is not here: `refresher serve` has not read it yet, or lacks its variables"
                ),
                "restart `refresher serve` with the variables that the account names; its log says what it does not take",
            ),
        }
    };
    facts.not_taken.iter().map(of).collect()
}

fn left_out(facts: &Facts) -> Vec<Finding> {
    let state = facts.state.iter();
    let all = state.flat_map(|state| &state.overview.left_out);
    let of = |one: &crate::store::LeftOut| Finding {
        severity: Wrong,
        check: "record",
        problem: format!(
            "the {} {} cannot go to Envoy: {}",
            one.kind.word(),
            one.id,
            one.why
        ),
        cure: match one.kind {
            Kind::Platform | Kind::Doors => {
                Some("start `refresher serve` anew: it publishes what the profiles say".to_owned())
            }
            _ => cure(Door::CommandLine, &Fault::Unopened),
        },
    };
    all.map(of).collect()
}

fn platforms_reached(facts: &Facts) -> Vec<Finding> {
    let of = |host: &crate::app::doctor::Host| {
        let why = host.ahead_ms.as_ref().err()?;
        Some(finding(
            Wrong,
            "network",
            format!(
                "{}, where account {} is reached, does not answer from here: {why}",
                host.name, host.account
            ),
            match host.is_address {
                true => {
                    "start what is to answer there; or say where the account is reached: refresher accounts set ACCOUNT \
                     --base-url URL, or base_url of [upstream] in its platform's profile"
                }
                false => {
                    "see to this machine's DNS, firewall and proxy; or, where it has none to the network, run: refresher \
                     doctor --offline"
                }
            },
        ))
    };
    facts.hosts.iter().filter_map(of).collect()
}

fn unconfirmed(facts: &Facts) -> Vec<Finding> {
    let gate = facts
        .envoy
        .as_ref()
        .and_then(|envoy| envoy.max_unconfirmed_seconds);
    only((gate == Some(0)).then(|| {
        finding(
            Note,
            "unconfirmed",
            "while `refresher serve` is down, Envoy goes on with keys and accounts that were taken away meanwhile, without end",
            "where that matters, set max_unconfirmed_seconds of the gate (docs/configuration.md)",
        )
    }))
}
