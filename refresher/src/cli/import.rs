//! `refresher import`: takes credentials over that other programs keep in files.

use std::path::PathBuf;

use clap::Args;

use super::error::in_a_line;
use super::proxy::ProxyFlag;
use super::terms::TermFlags;
use super::time::relative;
use super::{CALLER, Context, Result, login};
use crate::app::imports::{self, Becomes, Files, Kind, Line};
use crate::clock::UnixMillis;

/// Files of other programs, and the accounts to make of them.
#[derive(Debug, Args)]
pub struct Import {
    /// Files, or folders of files that end in .json or .csv: ~/.codex/auth.json, ~/.claude/.credentials.json,
    /// ~/.gemini/oauth_creds.json, a file of CLIProxyAPI, sub2api or opencode, a list of API keys (name, platform, key, pool,
    /// base_url)
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// The platform of the credentials, if the files do not say it or say another
    #[arg(long, value_name = "ID")]
    platform: Option<String>,
    /// The account's name, where there is one credential [default: what the file says, or its email address]
    #[arg(long)]
    name: Option<String>,
    /// The platform's account that a personal access token is for, which does not say it itself
    #[arg(long, value_name = "ID")]
    account_id: Option<String>,
    /// The Google Cloud project of the accounts, for platforms that have projects [default: the one that each has here, else
    /// the one that its platform names]. A free tier keeps its platform's project
    #[arg(long, value_name = "PROJECT")]
    project: Option<String>,
    /// A pool that the accounts join besides the default one
    #[arg(long)]
    pool: Option<String>,
    /// Replace a login that lasts longer, and the key of an account that has another
    #[arg(long)]
    replace: bool,
    /// Leave out what cannot be taken over, and take the rest
    #[arg(long)]
    skip: bool,
    #[command(flatten)]
    proxy: ProxyFlag,
    #[command(flatten)]
    terms: TermFlags,
}

impl Import {
    /// Reads the files and saves the accounts.
    ///
    /// # Errors
    /// With a message for a person that names the file and the place; nothing is saved then.
    pub async fn run(self, context: &Context) -> Result<()> {
        let Context { app, out, .. } = context;
        let mut terms = self.terms.terms(app.now())?;
        terms.proxy = self.proxy.setting()?;
        let files = Files {
            paths: &self.paths,
            platform: self.platform.as_deref(),
            name: self.name.as_deref(),
            account_id: self.account_id.as_deref(),
            pool: self.pool.as_deref(),
            replace: self.replace,
            skip: self.skip,
            terms: &terms,
        };
        let plan = imports::plan(app, &files).await?;
        if self.dry_run {
            let lines = plan.lines.iter().map(|line| would(line, app.now()));
            out.print(&lines.collect::<String>())?;
            return Ok(out.print("Nothing was changed: --dry-run\n")?);
        }
        let mut taken = imports::take_over(app, CALLER, &plan, &terms, self.project.as_deref())
            .await?
            .into_iter()
            .peekable();
        let mut has_login = false;
        for (index, line) in plan.lines.iter().enumerate() {
            let one = taken.next_if(|one| one.line == index);
            match one.and_then(|one| one.login) {
                Some(new) => {
                    has_login = true;
                    out.print(&login::saved(&new, self.name.as_deref(), app.now()))?;
                }
                None => out.print(&done(line))?,
            }
            if let Becomes::Account {
                kind: Kind::ApiKey { twins },
                ..
            } = &line.becomes
                && !twins.is_empty()
            {
                let twins = twins.join(", ");
                out.note(&format!(
                    "warning: this key is also that of {twins}; the platform counts them as one"
                ));
            }
        }
        if has_login {
            out.print(SINGLE_OWNER)?;
        }
        let platforms: Vec<&str> = plan.lines.iter().filter_map(platform).collect();
        match platforms.is_empty() {
            true => Ok(()),
            false => context.tell_if_nobody_serves(&platforms).await,
        }
    }
}

/// The platform of the account that a line becomes.
fn platform(line: &Line) -> Option<&str> {
    match &line.becomes {
        Becomes::Account { platform, .. } => Some(platform),
        Becomes::Nothing { .. } | Becomes::LeftOut { .. } => None,
    }
}

/// A line of a plan that was not carried out.
fn would(Line { at, becomes }: &Line, now: UnixMillis) -> String {
    match becomes {
        Becomes::Account {
            name,
            platform,
            is_new,
            kind,
        } => {
            let what = if *is_new {
                "would be added"
            } else {
                "would have the new credential"
            };
            let kind = match kind {
                Kind::Login {
                    credential_expires_at: Some(end),
                    ..
                } => format!("a login that ends {}", relative(*end, now)),
                Kind::Login { .. } => "a login".to_owned(),
                Kind::AccessToken => "a personal access token".to_owned(),
                Kind::ApiKey { twins } if twins.is_empty() => "an API key".to_owned(),
                Kind::ApiKey { twins } => format!("an API key, also that of {}", twins.join(", ")),
            };
            format!("{name}: {what} at {platform}: {kind} ({at})\n")
        }
        _ => done(&Line {
            at: at.clone(),
            becomes: becomes.clone(),
        }),
    }
}

/// A line of a plan that was carried out.
fn done(Line { at, becomes }: &Line) -> String {
    match becomes {
        Becomes::Account {
            name,
            platform,
            kind,
            ..
        } => {
            let more = match kind {
                Kind::AccessToken => {
                    "It is a personal access token: it cannot be refreshed, and works until it expires or is revoked.\n"
                }
                Kind::Login { .. } | Kind::ApiKey { .. } => "",
            };
            format!("{name}: imported at {platform}\n{more}")
        }
        Becomes::Nothing { name } => format!("{name}: has this credential already ({at})\n"),
        Becomes::LeftOut { why } => {
            let why = in_a_line(at, why);
            let why = why.strip_prefix(&format!("{at}: ")).unwrap_or(&why);
            format!("left out: {at}: {why}\n")
        }
    }
}

const SINGLE_OWNER: &str = "\nFrom now on Latchkey alone may refresh such a login: a refresh token works once, and whoever \
comes second loses the login for both.\nStop the program that wrote the file from using it: delete the file, and give that \
program a gateway key instead.\nDo not log out there: it would revoke the login here too.\n";
