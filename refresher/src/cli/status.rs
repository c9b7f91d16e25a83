//! `refresher status`: the accounts and how they are, for people and for machines.

use clap::Args;
use latchkey::snapshot::Kind;
use serde::Serialize;
use serde_json::json;

use super::output::{Width, table};
use super::time::{minute, relative, span};
use super::{Context, Exit, Json, Result, pools, terms};
use crate::advice::{
    Door, RESTART, check_command, cure, later_end_command, login_command, login_cure,
};
use crate::app::quota::Quota;
use crate::app::status::{self, AccountView, Cooldown, FailingView, Overview};
use crate::clock::UnixMillis;
use crate::credential::CredentialKind;
use crate::fault::Fault;
use crate::progress::EnvoyView;
use crate::standing::Standing;
use crate::store::LeftOut;

/// Printed where there is no account.
pub const NO_ACCOUNTS: &str =
    "No accounts yet. Add one: refresher accounts add NAME --platform openai\n";

/// `refresher status`.
#[derive(Debug, Args)]
pub struct Show {
    #[command(flatten)]
    json: Json,
    /// Exit with 4 where somebody has to see to something: `serve` does not run, an account needs a login, is dead or
    /// cannot renew its token, no Envoy polls, one stays behind, or a record cannot go to Envoy
    #[arg(long)]
    check: bool,
}

impl Show {
    /// Prints it.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn run(self, context: &Context) -> Result<()> {
        let Context { app, out, .. } = context;
        let overview = status::overview(app).await?;
        if self.check && needs_somebody(&overview) {
            context.exit.set(Exit::NeedsSomebody);
        }
        if self.json.json {
            return Ok(out.print_json(&json!({
                "state_dir": app.state.path(),
                "serving": overview.is_served,
                "revision": overview.revision,
                "accounts": overview.accounts.iter().map(Shown::of).collect::<Vec<_>>(),
                "left_out": overview.left_out,
                "envoys": overview.envoys,
                "pools": overview.pools.iter().map(pools::view).collect::<Vec<_>>(),
            }))?);
        }
        let state_dir = app.state.path().display();
        Ok(out.print(&text(&overview, &state_dir, app.now(), out.width()))?)
    }
}

/// True where nothing gets better by itself.
fn needs_somebody(overview: &Overview) -> bool {
    let is_idle = |account: &AccountView| {
        matches!(
            account.standing,
            Standing::NeedsLogin
                | Standing::Dead
                | Standing::PlatformOff
                | Standing::PlatformNew
                | Standing::LeftOut
        ) || ends_with_its_token(account)
    };
    !overview.is_served
        || !is_polled(overview)
        || overview.waiting_key.is_some()
        || !overview.left_out.is_empty()
        || overview
            .envoys
            .iter()
            .any(|envoy| envoy.behind_seconds.is_some())
        || overview.accounts.iter().any(is_idle)
        || overview.accounts.iter().any(is_stuck)
}

/// True where an Envoy polls: callers have an answer by none else.
fn is_polled(overview: &Overview) -> bool {
    let mut envoys = overview.envoys.iter();
    envoys.any(|envoy| envoy.gone_seconds.is_none())
}

fn is_stuck(account: &AccountView) -> bool {
    account
        .failing
        .as_ref()
        .is_some_and(|failing| failing.stuck)
}

/// The overview for people.
fn text(
    overview: &Overview,
    state_dir: &dyn std::fmt::Display,
    now: UnixMillis,
    width: Width,
) -> String {
    let running = match overview.is_served {
        true => "running",
        false => "NOT running (start it: refresher serve)",
    };
    let mut text = format!(
        "refresher  {running}\nstate      {state_dir}\nrevision   {}\n\n",
        overview.revision
    );
    if overview.waiting_key.is_some() {
        text += "The first of the sealing keys seals nothing yet. Finish the rotation: refresher rotate-key\n\n";
    }
    text += &envoys(&overview.envoys);
    if overview.is_answered && overview.envoys.is_empty() {
        text += "No Envoy has asked for the accounts since `refresher serve` started: nobody is served\n\n";
    }
    let accounts = &overview.accounts;
    if accounts.is_empty() {
        return text + NO_ACCOUNTS;
    }
    let time =
        |time: Option<i64>| time.map_or("-".to_owned(), |time| relative(UnixMillis(time), now));
    let rows: Vec<[String; 7]> = accounts
        .iter()
        .map(|view| {
            [
                view.name.clone(),
                view.platform.clone(),
                state(view).to_owned(),
                time(view.credential_expires_at),
                time(view.next_refresh_at),
                limits(view, now),
                why(view, now),
            ]
        })
        .collect();
    let head = [
        "ACCOUNT",
        "PLATFORM",
        "STATUS",
        "EXPIRES",
        "NEXT REFRESH",
        "LIMITS",
        "WHY",
    ];
    text += &table(width, head, &rows);
    text += &format!("\n{}", pools::as_table(width, &overview.pools));
    text + &quotas(width, accounts, now)
        + &proxies(accounts)
        + &left_out(overview)
        + &ends(accounts, now)
        + &logins(accounts)
        + &last_tokens(accounts)
        + &unrenewed(accounts, now)
        + &new_platforms(accounts)
        + &deaths(accounts)
        + &doubts(accounts)
}

/// The Envoys that stay behind, and those that are gone.
fn envoys(all: &[EnvoyView]) -> String {
    let text = |one: &EnvoyView| {
        let name = one.node.as_ref().unwrap_or(&one.instance);
        if let Some(seconds) = one.gone_seconds {
            return Some(format!(
                "The Envoy {name} has not polled for {seconds} s: it was stopped, or it cannot reach the refresher\n\n"
            ));
        }
        let (seconds, why) = (one.behind_seconds?, one.why.as_ref()?);
        Some(format!(
            "The Envoy {name} has stayed behind for {seconds} s: {why}\n\n"
        ))
    };
    all.iter().filter_map(text).collect()
}

/// The records that cannot go to Envoy, apart from the accounts that are shown, which say it themselves.
fn left_out(overview: &Overview) -> String {
    let is_shown = |one: &LeftOut| {
        let mut accounts = overview.accounts.iter();
        one.kind == Kind::Account && accounts.any(|account| account.id == one.id)
    };
    let others = overview.left_out.iter().filter(|one| !is_shown(one));
    let text = |one: &LeftOut| {
        let (kind, id, why) = (one.kind.word(), &one.id, &one.why);
        format!("\nThe {kind} {id} cannot go to Envoy and is out of use: {why}\n")
    };
    others.map(text).collect()
}

/// The accounts that serve and end for good soon, and what to do before that.
fn ends(accounts: &[AccountView], now: UnixMillis) -> String {
    let soon = accounts.iter().filter(|view| view.ends_soon);
    let text = |view: &AccountView| {
        let end = UnixMillis(view.ends_at?);
        let (name, left, at) = (&view.name, relative(end, now), minute(end));
        Some(format!(
            "\n{name} ends for good {left} ({at}): {}\n",
            later_end(view)
        ))
    };
    soon.filter_map(text).collect()
}

/// Returns what gives an account a later end.
pub fn later_end(view: &AccountView) -> String {
    match view.expires_at == view.ends_at {
        true => later_end_command(&view.name),
        false => login_command(&view.platform, &view.name),
    }
}

/// An account for machines.
#[derive(Debug, Serialize)]
pub struct Shown<'a> {
    #[serde(flatten)]
    view: &'a AccountView,
    /// The command that finishes a login, where it needs one that a person can do.
    login_command: Option<String>,
}

impl Shown<'_> {
    /// The account of `view`.
    pub fn of(view: &AccountView) -> Shown<'_> {
        let needs_login = view.standing == Standing::NeedsLogin;
        Shown {
            view,
            login_command: (needs_login && !view.needs_secrets)
                .then(|| login_command(&view.platform, &view.name)),
        }
    }
}

/// The quotas of the accounts of which any is known; empty where there is none.
pub fn quotas(width: Width, accounts: &[AccountView], now: UnixMillis) -> String {
    let known = accounts.iter().filter(|view| !view.quota.is_empty());
    let rows: Vec<[String; 2]> = known
        .map(|view| [view.name.clone(), quota(view, now)])
        .collect();
    match rows.is_empty() {
        true => String::new(),
        false => format!("\n{}", table(width, ["ACCOUNT", "QUOTA"], &rows)),
    }
}

/// The proxies by which accounts leave, a line each.
pub fn proxies(accounts: &[AccountView]) -> String {
    let line = |view: &AccountView| {
        let proxy = view.proxy.as_ref()?;
        Some(format!("{} leaves by {proxy}\n", view.name))
    };
    let lines: String = accounts.iter().filter_map(line).collect();
    if lines.is_empty() {
        lines
    } else {
        format!("\n{lines}")
    }
}

/// The way to log in, for each account that needs it.
pub fn logins(accounts: &[AccountView]) -> String {
    let needy = accounts
        .iter()
        .filter(|view| view.standing == Standing::NeedsLogin);
    let text = |view: &AccountView| {
        let (name, command) = (&view.name, login_command(&view.platform, &view.name));
        if view.needs_secrets {
            let cure = login_cure(&view.platform, name, true);
            return format!("\n{name} needs new secrets: {cure}\n");
        }
        match (&view.login_url, view.login_port) {
            (Some(url), Some(port)) => format!(
                "\n{name} needs a new login. Open this URL in a browser on this machine:\n\n{url}\n\n  For a browser on \
                 another machine, first run there: ssh -L {port}:127.0.0.1:{port} THIS-MACHINE\n  Or run here: \
                 {command} --paste\n"
            ),
            _ => format!(
                "\n{name} needs a new login: {command}\n  It prints the URL to open. For a browser on another machine, \
                 add --paste.\n"
            ),
        }
    };
    needy.map(text).collect()
}

/// Says why an account whose refresh token may be spent is not refreshed.
pub fn spent(view: &AccountView) -> &str {
    let reason = view.reason.as_deref();
    reason.unwrap_or("its refresh token may be spent")
}

/// The way on for each account that serves, and ends with its access token.
fn last_tokens(accounts: &[AccountView]) -> String {
    let last = accounts.iter().filter(|view| ends_with_its_token(view));
    let text = |view: &AccountView| {
        let (name, why) = (&view.name, spent(view));
        let cure = login_cure(&view.platform, name, view.needs_secrets);
        format!("\n{name} serves until its access token ends, and no longer: {why}; {cure}\n")
    };
    last.map(text).collect()
}

/// The way on for the accounts of platforms that the running `serve` does not know.
fn new_platforms(accounts: &[AccountView]) -> String {
    let new = accounts
        .iter()
        .filter(|view| view.standing == Standing::PlatformNew);
    let text = |view: &AccountView| format!("\n{} serves nobody yet: {RESTART}\n", view.name);
    new.map(text).collect()
}

/// True for an account that serves, and whose token is the last one without a login.
fn ends_with_its_token(view: &AccountView) -> bool {
    view.is_spent && matches!(view.standing, Standing::Active | Standing::CoolingDown)
}

/// Returns what is wrong with each account whose refreshes have failed for long, and the cure.
pub fn unrenewed(accounts: &[AccountView], now: UnixMillis) -> String {
    let text = |view: &AccountView| {
        let (problem, cure) = stuck(view, now)?;
        Some(format!("\n{problem}\n  To mend it, {cure}\n"))
    };
    accounts.iter().filter_map(text).collect()
}

/// Says what is wrong with an account whose refreshes fail for long, as a sentence without a full stop, and the cure.
pub fn stuck(view: &AccountView, now: UnixMillis) -> Option<(String, String)> {
    let FailingView { failing, .. } = view.failing.as_ref().filter(|failing| failing.stuck)?;
    let end = match view.credential_expires_at.map(UnixMillis) {
        None => String::new(),
        Some(end) if end <= now => format!(", which ended {}", relative(end, now)),
        Some(end) => format!(", which ends {}", relative(end, now)),
    };
    let problem = format!(
        "{} cannot renew its access token{end}: {} ({}, {})",
        view.name,
        failing.how.meaning(),
        failing.reason,
        how_often(view, failing.since, now),
    );
    let fault = Fault::RefreshLater {
        account: view.name.clone(),
        platform: view.platform.clone(),
        how: Some(failing.how),
        is_client: view.needs_secrets,
        at: view.next_refresh_at.unwrap_or_default(),
    };
    Some((problem, cure(Door::CommandLine, &fault).unwrap_or_default()))
}

/// `refresh refused 9 times in 2h (HTTP 403)`; empty where the last one went well.
pub fn failing(view: &AccountView, now: UnixMillis) -> String {
    view.failing
        .as_ref()
        .map_or_else(String::new, |FailingView { failing, .. }| {
            let often = how_often(view, failing.since, now);
            format!(
                "refresh {} {often} ({})",
                failing.how.word(),
                failing.reason
            )
        })
}

/// `9 times in 2h`, or when it was, if it was once.
fn how_often(view: &AccountView, since: UnixMillis, now: UnixMillis) -> String {
    let passed = span(now.since(since));
    match view.failures {
        0 | 1 => format!("{passed} ago"),
        failures => format!("{failures} times in {passed}"),
    }
}

/// The cure of each dead account.
fn deaths(accounts: &[AccountView]) -> String {
    let dead = accounts
        .iter()
        .filter(|view| view.standing == Standing::Dead);
    let text = |view: &AccountView| {
        let fault = Fault::Dead {
            account: view.name.clone(),
            platform: view.platform.clone(),
            has_key: CredentialKind::parse(view.kind).is_some_and(CredentialKind::is_key),
        };
        let cure = cure(Door::CommandLine, &fault).unwrap_or_default();
        format!("\n{} is dead: {cure}\n", view.name)
    };
    dead.map(text).collect()
}

/// The way to certainty about each account that was said to be dead, and is in use.
fn doubts(accounts: &[AccountView]) -> String {
    let doubted = accounts.iter().filter(|view| view.is_suspected);
    let text = |view: &AccountView| {
        let (name, command) = (&view.name, check_command(&view.name));
        format!("\n{name} may be dead. Ask its platform: {command}\n")
    };
    doubted.map(text).collect()
}

/// The status in a word or two.
pub fn state(view: &AccountView) -> &'static str {
    match view.standing {
        Standing::Active => "active",
        Standing::Ended => "ended",
        Standing::CoolingDown => "cooling down",
        Standing::PlatformOff
        | Standing::PlatformNew
        | Standing::LeftOut
        | Standing::TokenExpired => "not usable",
        Standing::Disabled => "disabled",
        Standing::LoggedOut => "logged out",
        Standing::NeedsLogin => "needs login",
        Standing::Dead => "dead",
    }
}

/// Its limits, what is used of them, and when it ends.
pub fn limits(view: &AccountView, now: UnixMillis) -> String {
    let end = view.expires_at.map(UnixMillis).map(|time| {
        let verb = if time <= now { "ended" } else { "ends" };
        format!("{verb} {}", relative(time, now))
    });
    joined([terms::limits(&view.limits), end.unwrap_or_default()], ", ")
}

/// Its cooldowns in words; empty where it has none.
pub fn cooldowns(view: &AccountView, now: UnixMillis) -> String {
    joined(view.cooling_down.iter().map(|one| cooldown(one, now)), "; ")
}

/// `cooling down, back in 2m (rate_limited, a guess)`.
fn cooldown(cooldown: &Cooldown, now: UnixMillis) -> String {
    let what = match &cooldown.model {
        None => "cooling down".to_owned(),
        Some(model) => format!("{model} cooling down"),
    };
    let until = millis(cooldown.until);
    let back = match until > now {
        true => format!("back {}", relative(until, now)),
        false => "one request at a time tries".to_owned(),
    };
    let guess = if cooldown.guessed { ", a guess" } else { "" };
    format!("{what}, {back} ({}{guess})", cooldown.reason)
}

/// `5h 62 % used, resets in 1h 10m (answers)`, a window each, and who told it.
fn quota(view: &AccountView, now: UnixMillis) -> String {
    let one = |Quota {
                   window,
                   left,
                   source,
                   ..
               }: &Quota| {
        let (name, source) = (&window.name, source.word());
        let resets = match window.resets_at.map(millis) {
            Some(at) if at <= now => return format!("{name}: full again ({source})"),
            at => at.map(|at| format!(", resets {}", relative(at, now))),
        };
        let used = match left {
            Some(left) => format!("{left:.2} left"),
            None => format!("{:.0} % used", window.used_percent),
        };
        format!("{name} {used}{} ({source})", resets.unwrap_or_default())
    };
    joined(view.quota.iter().map(one), "; ")
}

/// Says why it is as it is: its reason, how its refreshes fail, and its cooldowns.
fn why(view: &AccountView, now: UnixMillis) -> String {
    let reason = view.reason.clone().unwrap_or_default();
    joined([reason, failing(view, now), cooldowns(view, now)], "; ")
}

fn millis(time: u64) -> UnixMillis {
    UnixMillis(i64::try_from(time).unwrap_or(i64::MAX))
}

/// The parts that are not empty, with `separator` in between.
fn joined(parts: impl IntoIterator<Item = String>, separator: &str) -> String {
    let parts = parts.into_iter().filter(|part| !part.is_empty());
    parts.collect::<Vec<_>>().join(separator)
}
