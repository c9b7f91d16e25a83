//! The rest of a file beside its credentials, which is kept, and the same file written again with those of today.
//!
//! A template is the file with nothing in the place of each secret and each time. It may hold other secrets of the program
//! that wrote it, so the store seals it as it does credentials.

use std::fmt;

use csv::Writer;
use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use super::entry::{Entry, Form, Holds};
use super::fields::{self, Names, Place};
use super::keys;
use crate::clock::UnixMillis;
use crate::credential::{Credential, CredentialKind};
use crate::oauth::claims::{EMAIL, IDENTITY};
use crate::platform::flow::CredentialFile;
use crate::store::Vars;

/// Bytes of a template. What programs keep beside a login has under 4 KiB.
const TEMPLATE_LIMIT: usize = 64 * 1024;

/// A place in a template, and what goes there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Slot {
    /// The names on the way to it.
    path: Vec<String>,
    holds: What,
}

/// A value that goes into a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum What {
    Access,
    Refresh,
    Id,
    Key,
    Expires(Unit),
    Refreshed(Unit),
}

/// The way in which a time is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Unit {
    Seconds,
    Millis,
    SecondsAsText,
    MillisAsText,
    Rfc3339,
}

/// See the module's documentation.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Template {
    form: Form,
    /// The name of the entry, where entries have names.
    label: String,
    entry: Map<String, Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    around: Option<Map<String, Value>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    columns: Vec<String>,
    slots: Vec<Slot>,
}

/// An account to be written into a file.
#[derive(Debug)]
pub struct Exported {
    /// The rest of its file, beside its credential.
    pub template: Template,
    /// Its credential.
    pub credential: Credential,
    /// The end of its access token, where that is known.
    pub credential_expires_at: Option<UnixMillis>,
    /// The time when its tokens were renewed last.
    pub issued_at: UnixMillis,
}

/// The reason why accounts make no file.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Accounts that come from files of several forms.
    #[error("expected accounts whose files have one form, found several; export them one by one")]
    Forms,
    /// A file of that form holds one account.
    #[error(
        "expected one account, as a file of that form holds no more, found several; export them one by one"
    )]
    Several,
}

impl Template {
    /// The template of what an entry says beside its credential; none where that is more than [`TEMPLATE_LIMIT`].
    pub fn of(entry: &Entry) -> Option<Template> {
        let mut template = Template {
            form: entry.form,
            label: entry.of.clone(),
            entry: entry.entry.clone(),
            around: entry.around.clone(),
            columns: entry.columns.clone(),
            slots: Vec::new(),
        };
        let keys: [(Names, What); 1];
        let (member, slots): (_, &[(Names, What)]) = match entry.holds {
            Holds::Login(member) => (member, &TOKENS),
            Holds::Key(member, names) => {
                keys = [(names, What::Key)];
                (member, &keys)
            }
            Holds::AccessToken(names) => {
                keys = [(names, What::Access)];
                ("", &keys)
            }
            Holds::Nothing(_) => return None,
        };
        for (names, what) in slots {
            template.clear(member, names, *what);
        }
        template.clear("", fields::LAST_REFRESH, What::Refreshed(Unit::Rfc3339));
        (template.to_bytes().len() <= TEMPLATE_LIMIT).then_some(template)
    }

    /// A template for an account that came from no file: that of the program whose files its platform takes, or a list
    /// of keys.
    pub fn fresh(
        name: &str,
        platform: &str,
        kind: CredentialKind,
        file: Option<CredentialFile>,
        vars: &Vars,
    ) -> Template {
        let var = |name: &str| vars.get(name).cloned();
        let (form, entry, slots) = match (kind, file) {
            (CredentialKind::OAuth, Some(CredentialFile::Codex)) => (
                Form::Codex,
                json!({"auth_mode": "chatgpt", "OPENAI_API_KEY": null, "tokens": {
                    "id_token": null, "access_token": null, "refresh_token": null, "account_id": var(IDENTITY),
                }, "last_refresh": null}),
                vec![
                    (vec!["tokens", "id_token"], What::Id),
                    (vec!["tokens", "access_token"], What::Access),
                    (vec!["tokens", "refresh_token"], What::Refresh),
                    (vec!["last_refresh"], What::Refreshed(Unit::Rfc3339)),
                ],
            ),
            (CredentialKind::OAuth, Some(CredentialFile::Claude)) => (
                Form::Claude,
                json!({"claudeAiOauth": {}}),
                vec![
                    (vec!["claudeAiOauth", "accessToken"], What::Access),
                    (vec!["claudeAiOauth", "refreshToken"], What::Refresh),
                    (
                        vec!["claudeAiOauth", "expiresAt"],
                        What::Expires(Unit::Millis),
                    ),
                ],
            ),
            (CredentialKind::OAuth, Some(CredentialFile::Gemini)) => (
                Form::Gemini,
                json!({"token_type": "Bearer"}),
                vec![
                    (vec!["access_token"], What::Access),
                    (vec!["refresh_token"], What::Refresh),
                    (vec!["id_token"], What::Id),
                    (vec!["expiry_date"], What::Expires(Unit::Millis)),
                ],
            ),
            (CredentialKind::OAuth, None) => (
                Form::Flat,
                json!({"type": platform, "email": var(EMAIL)}),
                vec![
                    (vec!["access_token"], What::Access),
                    (vec!["refresh_token"], What::Refresh),
                    (vec!["id_token"], What::Id),
                    (vec!["expired"], What::Expires(Unit::Rfc3339)),
                    (vec!["last_refresh"], What::Refreshed(Unit::Rfc3339)),
                ],
            ),
            _ => (
                Form::Keys,
                json!({"name": name, "platform": platform}),
                vec![(vec!["key"], What::Key)],
            ),
        };
        let entry = entry.as_object().cloned().unwrap_or_default();
        let slots = slots.into_iter().map(|(path, holds)| Slot {
            path: path.into_iter().map(str::to_owned).collect(),
            holds,
        });
        Template {
            form,
            label: platform.to_owned(),
            entry,
            around: None,
            columns: Vec::new(),
            slots: slots.collect(),
        }
    }

    /// Takes what stands under any of `names` in a member out, and keeps the place of the one that counts.
    fn clear(&mut self, member: &'static str, names: Names, what: What) {
        let inner = match member {
            "" => Some(&mut self.entry),
            member => self.entry.get_mut(member).and_then(Value::as_object_mut),
        };
        let Some(inner) = inner else { return };
        let found = Place::new(inner, "").found(names);
        let found = found.map(|(name, value)| (name, what.written_as(value)));
        for name in names {
            if let Some(value) = inner.get_mut(*name) {
                *value = Value::Null;
            }
        }
        let member = Some(member).filter(|member| !member.is_empty());
        self.slots.extend(found.map(|(name, holds)| {
            Slot {
                path: member
                    .into_iter()
                    .chain([name])
                    .map(str::to_owned)
                    .collect(),
                holds,
            }
        }));
    }

    /// The bytes that are sealed.
    pub fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        // A struct of text always serialises.
        Zeroizing::new(serde_json::to_vec(self).unwrap_or_default())
    }

    /// The inverse of [`Template::to_bytes`]; none if the bytes are something else.
    pub fn from_bytes(bytes: &[u8]) -> Option<Template> {
        serde_json::from_slice(bytes).ok()
    }
}

/// A template may hold other secrets than credentials.
impl fmt::Debug for Template {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = formatter.debug_struct("Template");
        shown.field("form", &self.form).finish_non_exhaustive()
    }
}

/// The fields of a login.
const TOKENS: [(Names, What); 4] = [
    (fields::ACCESS, What::Access),
    (fields::REFRESH, What::Refresh),
    (fields::ID, What::Id),
    (fields::EXPIRES, What::Expires(Unit::Rfc3339)),
];

impl What {
    /// The same, with a time in the form in which `value` is one.
    fn written_as(self, value: &Value) -> What {
        let unit = || match value {
            Value::Number(_) => Unit::of(value.as_i64(), Unit::Seconds, Unit::Millis),
            Value::String(text) => match text.trim().parse() {
                Ok(number) => Unit::of(Some(number), Unit::SecondsAsText, Unit::MillisAsText),
                Err(_) => Unit::Rfc3339,
            },
            _ => Unit::Rfc3339,
        };
        match self {
            What::Expires(_) => What::Expires(unit()),
            What::Refreshed(_) => What::Refreshed(unit()),
            other => other,
        }
    }
}

impl Unit {
    fn of(number: Option<i64>, seconds: Unit, millis: Unit) -> Unit {
        match number {
            Some(number) if number > fields::MAX_SECONDS => millis,
            _ => seconds,
        }
    }

    fn write(self, time: UnixMillis) -> Value {
        match self {
            Unit::Seconds => Value::from(time.0 / 1_000),
            Unit::Millis => Value::from(time.0),
            Unit::SecondsAsText => Value::from((time.0 / 1_000).to_string()),
            Unit::MillisAsText => Value::from(time.0.to_string()),
            Unit::Rfc3339 => Timestamp::from_millisecond(time.0)
                .map_or(Value::Null, |time| Value::from(time.to_string())),
        }
    }
}

impl Exported {
    /// Returns what the account's file says of it, with its credential of today.
    fn filled(&self) -> Map<String, Value> {
        let mut entry = self.template.entry.clone();
        for slot in &self.template.slots {
            put(&mut entry, &slot.path, self.value(slot.holds));
        }
        entry
    }

    fn value(&self, what: What) -> Value {
        let secret = |secret: &SecretString| Value::from(secret.expose_secret());
        let (access, refresh, id) = match &self.credential {
            Credential::OAuth(tokens) => {
                (&tokens.access, Some(&tokens.refresh), tokens.id.as_ref())
            }
            Credential::Signed(signed) => (&signed.key, None, None),
            Credential::Client(client) => (&client.client_secret, None, None),
            Credential::ApiKey(key) | Credential::Session(key) => (key, None, None),
        };
        match what {
            What::Access | What::Key => secret(access),
            What::Refresh => refresh.map_or(Value::Null, secret),
            What::Id => id.map_or(Value::Null, secret),
            What::Expires(unit) => self
                .credential_expires_at
                .map_or(Value::Null, |time| unit.write(time)),
            What::Refreshed(unit) => unit.write(self.issued_at),
        }
    }
}

/// Puts a value where a path leads; objects on the way are made.
fn put(entry: &mut Map<String, Value>, path: &[String], value: Value) {
    match path {
        [] => {}
        [name] => {
            entry.insert(name.clone(), value);
        }
        [name, rest @ ..] => {
            let inner = entry.entry(name.clone()).or_insert_with(|| json!({}));
            if let Some(inner) = inner.as_object_mut() {
                put(inner, rest, value);
            }
        }
    }
}

/// The text of a file of these accounts.
///
/// # Errors
/// If there is no file that holds them all.
pub fn write(accounts: &[Exported]) -> Result<Zeroizing<String>, Error> {
    let mut forms = accounts.iter().map(|account| account.template.form);
    let form = forms.next().unwrap_or(Form::Keys);
    if forms.any(|other| other != form) {
        return Err(Error::Forms);
    }
    let around = accounts.first().and_then(|one| one.template.around.clone());
    let mut entries = accounts.iter().map(Exported::filled).map(Value::from);
    let file = match form {
        Form::Codex | Form::Claude | Form::Gemini | Form::Flat if accounts.len() > 1 => {
            return Err(Error::Several);
        }
        Form::Codex | Form::Claude | Form::Gemini | Form::Flat => {
            entries.next().unwrap_or_default()
        }
        Form::Sub2api => {
            let mut file = around.unwrap_or_default();
            file.insert("accounts".to_owned(), entries.collect());
            Value::from(file)
        }
        Form::Opencode => {
            let labels = accounts.iter().map(|one| one.template.label.clone());
            labels.zip(entries).collect()
        }
        Form::Keys => match around {
            None => entries.collect(),
            Some(mut file) => {
                file.insert("accounts".to_owned(), entries.collect());
                Value::from(file)
            }
        },
        Form::Csv => return Ok(table(accounts)),
    };
    let text = serde_json::to_string_pretty(&file).unwrap_or_default();
    Ok(Zeroizing::new(text + "\n"))
}

/// A table with the columns that the accounts' files had.
fn table(accounts: &[Exported]) -> Zeroizing<String> {
    let mut columns: Vec<&String> = Vec::new();
    for column in accounts.iter().flat_map(|one| &one.template.columns) {
        if !columns.contains(&column) {
            columns.push(column);
        }
    }
    let mut writer = Writer::from_writer(Vec::new());
    let rows = accounts.iter().map(|account| {
        let entry = account.filled();
        let cells = columns.iter().map(|column| {
            let cell = entry.get(&keys::known(column)).and_then(Value::as_str);
            cell.unwrap_or_default().to_owned()
        });
        cells.collect::<Vec<_>>()
    });
    let head = columns.iter().map(|column| (*column).clone()).collect();
    for row in std::iter::once(head).chain(rows) {
        // Memory takes every row, and all have one cell for each column.
        let _ = writer.write_record(&row);
    }
    let bytes = writer.into_inner().unwrap_or_default();
    Zeroizing::new(String::from_utf8(bytes).unwrap_or_default())
}

#[cfg(test)]
#[path = "template_tests.rs"]
mod tests;
