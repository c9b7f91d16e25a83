//! `refresher platforms`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use latchkey::dialect::Dialect;
use serde_json::{Value, json};

use super::output::{Out, or_none, table};
use super::{Error, Json, Result};
use crate::app::platforms::Setting;
use crate::platform::catalog::{Checked, Written};
use crate::platform::{OwnBaseUrl, Profile};

/// Operations on platforms.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show the platforms that there are: those built in, and those of `platforms_dir`
    List(Json),
    /// Show a platform's profile, merged from all its files
    Show(Show),
    /// Check a profile before it is put into `platforms_dir`; an error names its line
    Check(Check),
}

/// The platform that is meant.
#[derive(Debug, Args)]
pub struct Show {
    /// Its id
    platform: String,
    #[command(flatten)]
    json: Json,
}

/// The file that is meant.
#[derive(Debug, Args)]
pub struct Check {
    /// A file named after the platform, as it would be in the folder: groq.toml
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

impl Command {
    /// Runs it.
    ///
    /// # Errors
    /// If a profile does not fit, or there is none of that id.
    pub fn run(self, setting: &Setting, out: &Out) -> Result<()> {
        match self {
            Command::List(json) => list(setting, json, out),
            Command::Show(show) => show.run(setting, out),
            Command::Check(check) => {
                let said = match setting.check(&check.file)? {
                    Checked::Platform(profile) => summary(&profile),
                    Checked::Base => "is there to be extended, and is no platform\n".to_owned(),
                };
                Ok(out.print(&format!("{}: {said}", check.file.display()))?)
            }
        }
    }
}

fn list(setting: &Setting, json: Json, out: &Out) -> Result<()> {
    let catalog = setting.catalog()?;
    let listed = catalog.written().map(|(profile, written)| {
        let is_on = catalog.usable(&profile.id).is_ok();
        (profile, written, is_on)
    });
    if json.json {
        let listed = listed.map(|(profile, written, is_on)| about(profile, written, is_on));
        return Ok(out.print_json(&listed.collect::<Vec<Value>>())?);
    }
    let rows: Vec<[String; 5]> = listed
        .map(|(profile, written, is_on)| {
            let state = if is_on {
                ""
            } else {
                "off: its terms are not acknowledged"
            };
            [
                profile.id.clone(),
                profile.name.clone(),
                doors(profile).unwrap_or_else(|| "all translated".to_owned()),
                or_none(own_files(written).as_str()).to_owned(),
                state.to_owned(),
            ]
        })
        .collect();
    let head = ["PLATFORM", "NAME", "DOORS", "YOUR FILE", ""];
    Ok(out.print(&table(out.width(), head, &rows))?)
}

impl Show {
    fn run(self, setting: &Setting, out: &Out) -> Result<()> {
        let catalog = setting.catalog()?;
        let profile = catalog.profile(&self.platform)?;
        let mut all = catalog.written();
        let (_, written) = all
            .find(|(other, _)| other.id == profile.id)
            .ok_or("there is no such platform")?;
        if self.json.json {
            return Ok(out.print_json(&written.table)?);
        }
        let files = written
            .files
            .iter()
            .map(|file| format!("# {}\n", file.display()));
        let text = toml::to_string_pretty(&written.table)
            .map_err(|error| Error::Input(error.to_string()))?;
        Ok(out.print(&format!("{}{text}", files.collect::<String>()))?)
    }
}

/// A profile in a sentence.
fn summary(profile: &Profile) -> String {
    let at = match profile.upstream.of_accounts {
        OwnBaseUrl::Required => "at the base URL of each account".to_owned(),
        OwnBaseUrl::None | OwnBaseUrl::Optional => format!("at {}", profile.upstream.url.as_str()),
    };
    let probe = match profile.probe {
        Some(_) => "",
        None => ", without a call that proves a key",
    };
    let doors = match doors(profile) {
        Some(doors) => format!("by the doors of {doors}"),
        None => "by translation alone".to_owned(),
    };
    let (id, rules) = (&profile.id, profile.record.verdicts.len());
    format!("fits: platform {id} {at}, {doors}, with {rules} verdicts{probe}\n")
}

/// The dialects that a platform answers in.
fn dialects(profile: &Profile) -> Vec<Dialect> {
    let mut dialects: Vec<Dialect> = Vec::new();
    for endpoint in &profile.record.endpoints {
        if !dialects.contains(&endpoint.dialect) {
            dialects.push(endpoint.dialect);
        }
    }
    dialects
}

/// The dialects of a platform whose doors callers have; none where every request is translated.
fn doors(profile: &Profile) -> Option<String> {
    let dialects = dialects(profile).into_iter();
    let doors = dialects.filter(|dialect| dialect.is_of_callers());
    let words: Vec<&str> = doors.map(Dialect::word).collect();
    (!words.is_empty()).then(|| words.join(", "))
}

/// The operator's own files of a platform.
fn own_files(written: &Written) -> String {
    let own = written.own_files().map(|file| file.display().to_string());
    own.collect::<Vec<_>>().join(", ")
}

fn about(profile: &Profile, written: &Written, is_on: bool) -> Value {
    json!({
        "id": profile.id,
        "name": profile.name,
        "dialects": dialects(profile).into_iter().map(Dialect::word).collect::<Vec<_>>(),
        "credentials": profile.credentials.iter().map(|kind| kind.as_str()).collect::<Vec<_>>(),
        "files": written.files,
        "on": is_on,
        "terms": profile.terms,
    })
}
