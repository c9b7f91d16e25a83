//! The doors: what callers may ask of the gateway, on which path.
//!
//! A door says what a request on it is: its dialect and its [`Operation`]. Where that is at a
//! platform, an [`Endpoint`](super::Endpoint) of the platform says. Doors are data, and go by small
//! numbers: no table is as large as callers can think of paths.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::path::{Pattern, Places, is_plain, unescaped};
use crate::{
    dialect::Dialect,
    header::HeaderName,
    id::Id,
    newtype::{checked_text, invalid_text},
};

/// The most doors.
const MAX_DOORS: usize = 256;

/// The most [aliases](Alias).
const MAX_ALIASES: usize = 32;

/// The longest name of an operation, in bytes.
const MAX_OPERATION_BYTES: usize = 32;

/// The number of a door. It is never given to another one: requests that are under way carry it.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct DoorId(pub u16);

/// An operation: `generate`, `stream`, `count_tokens`, `embed`. 1 to 32 of `a-z` and `_`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Operation(Arc<str>);

checked_text! {
    Operation, InvalidOperation;
}

invalid_text! {
    /// A text that is not an [`Operation`].
    InvalidOperation, "expected an operation: 1 to {MAX_OPERATION_BYTES} of a-z and _"
}

/// An operation that the gateway itself answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Own {
    /// The list of models.
    Models,
    /// A single model of that list.
    Model,
    /// A sign that the gateway is there, for whoever asks.
    Alive,
}

/// A question that callers may ask.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Door {
    /// Its number.
    pub id: DoorId,
    /// The method, in upper case.
    pub method: String,
    /// The path.
    pub path: Pattern,
    /// The header that a request must have to come through.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header: Option<HeaderName>,
    /// The query parameter that a request must have to come through.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query: Option<String>,
    /// The wire format that is spoken there.
    pub dialect: Dialect,
    /// The operation.
    pub operation: Operation,
    /// Nothing in the request's body decides, if it has one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub opaque: bool,
    /// Nothing is generated: the request names no model, and needs none.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub modelless: bool,
    /// The request's body may name a thing that exists in one account alone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub things: bool,
    /// The answer shows what an account holds, whoever made it: for those alone who may choose the
    /// account, and do.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub of_account: bool,
    /// The request may generate its answer later, where nobody here sees it. It is not for a key with limits of
    /// tokens, or a list of models.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub uncounted: bool,
}

/// A beginning of paths that stands for another one. It counts where no door is on a path as it
/// was sent: people give their clients base URLs with more or less in them than is here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alias {
    /// The beginning as it is sent, without a slash at its end; empty for every path.
    pub from: String,
    /// The beginning that is meant.
    pub to: String,
}

/// Every door of the gateway: one record of the snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Doors {
    /// [`Doors::ID`].
    pub id: Id,
    /// The doors; a request comes through the first that takes it.
    pub doors: Vec<Door>,
    /// The headers in which clients name a session, the most telling first.
    #[serde(default)]
    pub session_headers: Vec<HeaderName>,
    /// The aliases; the first that leads to a door counts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<Alias>,
}

/// A request that has come in.
#[derive(Debug, PartialEq, Eq)]
pub struct Entered<'d> {
    /// The door.
    pub door: &'d Door,
    /// The values that its path has in the door's places.
    pub places: Places,
}

/// The reason why a request comes through no door.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoDoor {
    /// The path has no door, nor has what it stands for.
    Path,
    /// The doors on its path have these methods, in words.
    Method(String),
}

/// The parts of a request that open a door.
#[derive(Debug, Clone, Copy)]
pub struct Knock<'a> {
    /// The method, in upper case.
    pub method: &'a [u8],
    /// The path, without the query.
    pub path: &'a str,
    /// The query, without the question mark.
    pub query: &'a [u8],
}

// === impl Operation ===

impl Operation {
    /// The answer that the gateway itself gives, if it answers this.
    pub fn own(&self) -> Option<Own> {
        match self.as_str() {
            "models" => Some(Own::Models),
            "model" => Some(Own::Model),
            "alive" => Some(Own::Alive),
            _ => None,
        }
    }

    fn check(text: &str) -> Result<(), InvalidOperation> {
        let legal = |byte: u8| byte.is_ascii_lowercase() || byte == b'_';
        let fits = (1..=MAX_OPERATION_BYTES).contains(&text.len()) && text.bytes().all(legal);
        fits.then_some(()).ok_or(InvalidOperation)
    }
}

// === impl Door ===

impl Door {
    /// The answer that the gateway itself gives here, if it does.
    pub fn own(&self) -> Option<Own> {
        self.operation.own()
    }

    /// Returns true if requests of this method come through. `HEAD` asks for the head of what `GET` asks
    /// for (RFC 9110 §9.3.2), of which the gateway answers its own.
    fn has_method(&self, method: &[u8]) -> bool {
        self.method.as_bytes() == method
            || method == b"HEAD" && self.method == "GET" && self.own().is_some()
    }

    /// Returns true if some request could come through both doors, so that their order decides.
    fn meets(&self, other: &Door) -> bool {
        self.method == other.method
            && self.header == other.header
            && self.query == other.query
            && self.path.meets(&other.path)
    }

    /// Returns true if the door asks for something beside method and path.
    fn is_choosy(&self) -> bool {
        self.header.is_some() || self.query.is_some()
    }

    fn takes(&self, knock: &Knock<'_>, has_header: impl Fn(&str) -> bool) -> bool {
        let header = self.header.as_ref();
        let query = self.query.as_ref();
        header.is_none_or(|name| has_header(name.as_str()))
            && query.is_none_or(|name| has_parameter(knock.query, name))
    }
}

/// Returns true if a query has a parameter of this name.
fn has_parameter(query: &[u8], name: &str) -> bool {
    query.split(|byte| *byte == b'&').any(|parameter| {
        let key = parameter.split(|byte| *byte == b'=').next();
        let key = std::str::from_utf8(key.unwrap_or_default());
        key.is_ok_and(|key| unescaped(key).as_deref() == Some(name))
    })
}

// === impl Doors ===

impl Doors {
    /// The id of the one record of doors.
    pub const ID: &'static str = "doors";

    /// Finds what is wrong with the doors as a set; none if nothing is.
    pub fn problem(&self) -> Option<String> {
        if self.doors.len() > MAX_DOORS {
            return Some(format!("expected at most {MAX_DOORS} doors"));
        }
        if self.aliases.len() > MAX_ALIASES || !self.aliases.iter().all(Alias::is_sound) {
            return Some(format!(
                "aliases: expected at most {MAX_ALIASES} beginnings of paths, without a slash at the end"
            ));
        }
        for (index, door) in self.doors.iter().enumerate() {
            let before = self.doors.get(..index).unwrap_or_default();
            if before.iter().any(|other| other.id == door.id) {
                return Some(format!("door {}: expected a number of its own", door.id.0));
            }
            if let Some(other) = before.iter().find(|other| other.meets(door)) {
                let (one, other) = (door.id.0, other.id.0);
                return Some(format!("doors {other} and {one}: expected no path of both"));
            }
            let hidden = |other: &&Door| {
                !other.is_choosy()
                    && door.is_choosy()
                    && other.method == door.method
                    && other.path.meets(&door.path)
            };
            if let Some(other) = before.iter().find(hidden) {
                let (one, other) = (door.id.0, other.id.0);
                return Some(format!(
                    "door {one}: expected before door {other}, which takes its requests"
                ));
            }
        }
        None
    }

    /// The door of this number.
    pub fn get(&self, id: DoorId) -> Option<&Door> {
        self.doors.iter().find(|door| door.id == id)
    }

    /// Lets a request in, by its path or by what that stands for.
    ///
    /// # Errors
    /// [`NoDoor`], where none takes it.
    pub fn enter(
        &self,
        knock: &Knock<'_>,
        has_header: impl Fn(&str) -> bool,
    ) -> Result<Entered<'_>, NoDoor> {
        let none = match self.enter_at(knock, &has_header) {
            Err(NoDoor::Path) => NoDoor::Path,
            told => return told,
        };
        let path = knock.path.trim_end_matches('/');
        let ended = (path != knock.path).then(|| path.to_owned());
        let meant = self.aliases.iter().filter_map(|alias| alias.meant(path));
        for path in ended.into_iter().chain(meant) {
            let path = path.as_str();
            match self.enter_at(&Knock { path, ..*knock }, &has_header) {
                Err(NoDoor::Path) => {}
                told => return told,
            }
        }
        Err(none)
    }

    fn enter_at(
        &self,
        knock: &Knock<'_>,
        has_header: impl Fn(&str) -> bool,
    ) -> Result<Entered<'_>, NoDoor> {
        let mut methods: Vec<&str> = Vec::new();
        for door in &self.doors {
            let Some(places) = door.path.matches(knock.path) else {
                continue;
            };
            if !door.has_method(knock.method) {
                methods.push(&door.method);
            } else if door.takes(knock, &has_header) {
                return Ok(Entered { door, places });
            }
        }
        methods.sort_unstable();
        methods.dedup();
        match methods.is_empty() {
            true => Err(NoDoor::Path),
            false => Err(NoDoor::Method(methods.join(", "))),
        }
    }

    /// The beginning of `path` and what has to stand in its place, where the path ends as that of a
    /// door of this method does.
    pub fn meant_base<'p>(&self, method: &[u8], path: &'p str) -> Option<(&'p str, String)> {
        let path = path.trim_end_matches('/');
        let doors = self.doors.iter().filter(|door| door.has_method(method));
        let (door, common) = doors
            .map(|door| (door, door.path.common_end(path)))
            .filter(|(_, common)| *common > 0)
            .reduce(|best, next| if next.1 > best.1 { next } else { best })?;
        let beginning = |text: &str| {
            let mut cuts = text.rmatch_indices('/').map(|(at, _)| at);
            cuts.nth(common.saturating_sub(1)).unwrap_or_default()
        };
        let meant = String::from(door.path.clone());
        let right = meant.get(..beginning(&meant))?.to_owned();
        Some((path.get(..beginning(path))?, right))
    }
}

// === impl Alias ===

impl Alias {
    /// The path that `path` stands for, where it begins as this alias does.
    fn meant(&self, path: &str) -> Option<String> {
        let rest = path.strip_prefix(self.from.as_str())?;
        (rest.is_empty() || rest.starts_with('/')).then(|| format!("{}{rest}", self.to))
    }

    fn is_sound(&self) -> bool {
        let sound = |text: &str| text.is_empty() || is_plain(text) && !text.ends_with('/');
        sound(&self.from) && sound(&self.to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn doors(json: &str) -> Doors {
        serde_json::from_str(&format!("{{\"id\":\"doors\",\"doors\":[{json}]}}")).unwrap()
    }

    const LISTS: &str = r#"
        {"id":1,"method":"GET","path":"/v1/models","header":"anthropic-version","dialect":"messages","operation":"models"},
        {"id":2,"method":"GET","path":"/v1/models","query":"client_version","dialect":"responses","operation":"models"},
        {"id":3,"method":"GET","path":"/v1/models","dialect":"chat","operation":"models"},
        {"id":4,"method":"POST","path":"/v1/m/{model}:go","dialect":"chat","operation":"generate"}"#;

    fn entered(doors: &Doors, method: &str, target: &str, header: &str) -> Result<u16, NoDoor> {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let knock = Knock {
            method: method.as_bytes(),
            path,
            query: query.as_bytes(),
        };
        let entered = doors.enter(&knock, |name| name == header)?;
        Ok(entered.door.id.0)
    }

    #[test]
    fn the_first_door_that_takes_a_request_is_its_own() {
        let doors = doors(LISTS);
        assert_eq!(doors.problem(), None);
        let get = |target, header| entered(&doors, "GET", target, header);
        assert_eq!(get("/v1/models", "anthropic-version"), Ok(1));
        assert_eq!(get("/v1/models?a=b&client_version=1", ""), Ok(2));
        assert_eq!(get("/v1/models?client%5fversion", ""), Ok(2));
        assert_eq!(get("/v1/models?x=client_version", ""), Ok(3));
        assert_eq!(get("/v1/model", ""), Err(NoDoor::Path));
        assert_eq!(
            entered(&doors, "POST", "/v1/models", ""),
            Err(NoDoor::Method("GET".to_owned()))
        );
        assert_eq!(entered(&doors, "POST", "/v1/m/gpt:go", ""), Ok(4));
        assert_eq!(
            entered(&doors, "get", "/v1/m/gpt:go", ""),
            Err(NoDoor::Method("POST".to_owned()))
        );
        assert_eq!(entered(&doors, "HEAD", "/v1/models", ""), Ok(3));
        assert_eq!(
            entered(&doors, "HEAD", "/v1/m/gpt:go", ""),
            Err(NoDoor::Method("POST".to_owned())),
            "not the gateway's own"
        );
    }

    #[test]
    fn a_path_stands_for_another_one_where_no_door_is_on_it() {
        let mut doors = doors(LISTS);
        doors.aliases = serde_json::from_str(
            r#"[{"from":"/v1/v1","to":"/v1"},{"from":"/openai","to":""},{"from":"","to":"/v1"}]"#,
        )
        .unwrap();
        assert_eq!(doors.problem(), None);
        let get = |path| entered(&doors, "GET", path, "");
        for path in [
            "/v1/models",
            "/v1/models/",
            "/v1/v1/models",
            "/openai/v1/models",
            "/models",
            "/models/",
        ] {
            assert_eq!(get(path), Ok(3), "{path}");
        }
        for path in ["/v1/v1models", "/openaiv1/models", "/x/models", "/", ""] {
            assert_eq!(get(path), Err(NoDoor::Path), "{path}");
        }
        let sent = entered(&doors, "PUT", "/models", "");
        assert_eq!(sent, Err(NoDoor::Method("GET".to_owned())));
        doors.aliases[0].from = "/a/".to_owned();
        assert!(doors.problem().is_some());
    }

    #[test]
    fn the_base_that_was_meant_is_found_by_the_paths_end() {
        let doors = doors(
            r#"{"id":1,"method":"POST","path":"/v1/chat/completions","dialect":"chat","operation":"generate"},
            {"id":2,"method":"POST","path":"/v1/messages","dialect":"messages","operation":"generate"},
            {"id":3,"method":"GET","path":"/v1/models/{model}","dialect":"chat","operation":"model"}"#,
        );
        let meant = |path| doors.meant_base(b"POST", path);
        let base = |sent, right: &str| Some((sent, right.to_owned()));
        assert_eq!(meant("/x/y/chat/completions/"), base("/x/y", "/v1"));
        assert_eq!(meant("/x/v1/messages"), base("/x", ""));
        assert_eq!(meant("/v1/messages"), base("", ""));
        assert_eq!(meant("/completion"), None);
        assert_eq!(meant("/x/models/gpt"), None);
        assert_eq!(meant(""), None);
    }

    #[test]
    fn doors_that_get_into_each_others_way_are_named() {
        let last = r#",{"id":5,"method":"POST","path":"/v1/m/{model}","dialect":"chat","operation":"generate"}"#;
        let problem = |more: &str| doors(&format!("{LISTS}{more}")).problem();
        assert_eq!(
            problem(last).as_deref(),
            Some("doors 4 and 5: expected no path of both")
        );
        assert_eq!(problem(&last.replace("/m/", "/n/")), None);
        assert_eq!(
            problem(&last.replace("/m/", "/n/").replace(":5", ":4")).as_deref(),
            Some("door 4: expected a number of its own")
        );
        let hidden = LISTS.replace("\"id\":1,", "\"id\":9,");
        let mut hidden = doors(&hidden);
        let door = hidden.doors.remove(0);
        hidden.doors.push(door);
        assert_eq!(
            hidden.problem().as_deref(),
            Some("door 9: expected before door 3, which takes its requests")
        );
    }

    #[test]
    fn operations_are_words() {
        assert!(Operation::try_from("count_tokens".to_owned()).is_ok());
        for bad in ["", "Generate", "a b", &"x".repeat(33)] {
            assert_eq!(
                Operation::try_from(bad.to_owned()),
                Err(InvalidOperation),
                "{bad}"
            );
        }
    }
}
