//! The platforms at hand: the embedded profiles, the operator's merged over them, and which terms were acknowledged.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use toml::Table;

pub use super::error::Error;
use super::layers::{Layer, Layers};
use super::{Profile, invalid};
use crate::files::owned::{require_owned_directory, require_owned_if_there, require_owned_text};

/// The built-in files by the id that they describe, platforms and what platforms extend.
const EMBEDDED: &[(&str, &str)] = include!("../../platforms/all.rs");
/// Stands before the name of a file that is built in.
const BUILT_IN: &str = "(built in) ";
/// The most bytes of a profile: a hundred times the longest embedded one.
const MAX_PROFILE_BYTES: u64 = 256 * 1024;

/// Every platform by id, and the terms that were acknowledged.
#[derive(Debug, Clone)]
pub struct Catalog {
    profiles: BTreeMap<String, (Profile, Written)>,
    acknowledged: BTreeSet<String>,
}

/// A profile as its files say together.
#[derive(Debug, Clone)]
pub struct Written {
    /// The files, the one that counts most first.
    pub files: Vec<PathBuf>,
    /// Their content.
    pub table: Table,
}

/// A file that was found to fit.
#[derive(Debug)]
pub enum Checked {
    /// A file that makes or changes this platform.
    Platform(Box<Profile>),
    /// A file that is there to be extended.
    Base,
}

impl Catalog {
    /// The built-in profiles, with `<folder>/<id>.toml` over them or beside them.
    ///
    /// # Errors
    /// Naming the file and the key.
    pub fn load(folder: Option<&Path>, acknowledged: BTreeSet<String>) -> Result<Catalog, Error> {
        let layers = layers(&folder.map(toml_files).transpose()?.unwrap_or_default())?;
        let mut profiles = BTreeMap::new();
        for id in layers.ids() {
            if let Some(built) = built(&layers, id)? {
                profiles.insert(id.to_owned(), built);
            }
        }
        Ok(Catalog {
            profiles,
            acknowledged,
        })
    }

    /// Checks `file` as if it were in the folder, in place of the one of its name that may be there.
    ///
    /// # Errors
    /// Naming the file and the key.
    pub fn check(folder: Option<&Path>, file: &Path) -> Result<Checked, Error> {
        let mut files = folder.map(toml_files).transpose()?.unwrap_or_default();
        files.retain(|other| other.file_name() != file.file_name());
        files.push(file.to_owned());
        let built = built(&layers(&files)?, &id_of(file))?;
        Ok(built.map_or(Checked::Base, |(profile, _)| {
            Checked::Platform(Box::new(profile))
        }))
    }

    /// Finds the faults of the operator's folder: of each file, and of each platform that the others make.
    pub fn faults(folder: &Path) -> Vec<Error> {
        let (files, mut layers) = match (toml_files(folder), layers(&[])) {
            (Ok(files), Ok(layers)) => (files, layers),
            (Err(error), _) | (_, Err(error)) => return vec![error],
        };
        let mut faults = Vec::new();
        for path in files {
            let text = read(&path);
            match text.and_then(|text| Layer::parse(path.clone(), text)) {
                Ok(layer) => layers.add(&id_of(&path), layer),
                Err(error) => faults.push(error),
            }
        }
        let ids = layers.ids().map(|id| built(&layers, id));
        faults.extend(ids.filter_map(Result::err));
        faults
    }

    /// The platform `id`, if it may be used.
    ///
    /// # Errors
    /// If there is none, or its terms were not acknowledged; the message has the notice and the cure.
    pub fn usable(&self, id: &str) -> Result<&Profile, Error> {
        let profile = self.profile(id)?;
        match &profile.terms {
            Some(terms) if !self.acknowledged.contains(id) => Err(Error::TermsNotAcknowledged {
                id: id.to_owned(),
                terms: terms.clone(),
            }),
            _ => Ok(profile),
        }
    }

    /// The platform `id`, acknowledged or not.
    ///
    /// # Errors
    /// If there is none.
    pub fn profile(&self, id: &str) -> Result<&Profile, Error> {
        let known = self.profiles.get(id).map(|(profile, _)| profile);
        known.ok_or_else(|| {
            let known = self
                .profiles
                .keys()
                .map(String::as_str)
                .collect::<Vec<_>>()
                .join(", ");
            Error::Unknown {
                id: id.to_owned(),
                known,
            }
        })
    }

    /// Every platform.
    pub(super) fn all(&self) -> impl Iterator<Item = &Profile> {
        self.written().map(|(profile, _)| profile)
    }

    /// Every platform, and what its files say.
    pub fn written(&self) -> impl Iterator<Item = (&Profile, &Written)> {
        self.profiles
            .values()
            .map(|(profile, written)| (profile, written))
    }

    /// Every platform that may be used.
    pub fn all_usable(&self) -> impl Iterator<Item = &Profile> {
        self.all()
            .filter(|profile| self.usable(&profile.id).is_ok())
    }
}

impl Written {
    /// The operator's own files.
    pub fn own_files(&self) -> impl Iterator<Item = &Path> {
        let is_own = |file: &&Path| !file.to_string_lossy().starts_with(BUILT_IN);
        self.files.iter().map(PathBuf::as_path).filter(is_own)
    }
}

/// The platform that a file of this name describes.
fn id_of(file: &Path) -> String {
    let id = file.file_stem().unwrap_or_default();
    id.to_string_lossy().into_owned()
}

/// The built-in files with `files` over them.
fn layers(files: &[PathBuf]) -> Result<Layers, Error> {
    let mut layers = Layers::default();
    for &(id, text) in EMBEDDED {
        let path = PathBuf::from(format!("{BUILT_IN}{id}.toml"));
        layers.add(id, Layer::parse(path, text.to_owned())?);
    }
    for path in files {
        let text = read(path)?;
        layers.add(&id_of(path), Layer::parse(path.clone(), text)?);
    }
    Ok(layers)
}

/// The platform `id`; none for what is there to be extended.
fn built(layers: &Layers, id: &str) -> Result<Option<(Profile, Written)>, Error> {
    let merged = layers.merged(id)?;
    if merged.is_abstract {
        return Ok(None);
    }
    let profile = Profile::from_table(merged.table.clone());
    let profile = profile.map_err(|error| merged.invalid(error))?;
    if profile.id != id {
        let problem = format!("expected {id:?}, the file's name, found {:?}", profile.id);
        return Err(merged.invalid(invalid("id", problem)));
    }
    // Envoy reads the one of the upstream, where it may see other files than we do.
    let of_tokens = profile
        .oauth
        .as_ref()
        .and_then(|oauth| oauth.ca_file.as_ref());
    for ca_file in profile.upstream.ca_file.iter().chain(of_tokens) {
        require_owned_if_there(ca_file)?;
    }
    let files = merged.files().map(Path::to_owned).collect();
    let table = merged.table;
    Ok(Some((profile, Written { files, table })))
}

/// The folder's `*.toml`, in order of name.
fn toml_files(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let failed = |source| Error::Folder {
        path: folder.to_owned(),
        source,
    };
    let entries = fs::read_dir(folder).map_err(failed)?;
    require_owned_directory(folder)?;
    let entries = entries.collect::<Result<Vec<_>, _>>().map_err(failed)?;
    let mut paths: Vec<PathBuf> = entries.into_iter().map(|entry| entry.path()).collect();
    paths.retain(|path| {
        path.extension()
            .is_some_and(|extension| extension == "toml")
    });
    paths.sort();
    Ok(paths)
}

fn read(path: &Path) -> Result<String, Error> {
    let text = require_owned_text(path, MAX_PROFILE_BYTES)?;
    Ok(text.as_str().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(file: &str, text: impl AsRef<[u8]>) -> Result<Catalog, Error> {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(file), text).unwrap();
        Catalog::load(Some(folder.path()), BTreeSet::new())
    }

    #[test]
    fn an_override_changes_what_it_names_and_nothing_else() {
        let text = "upstream.base_url = 'https://[::1]:8443'\nmodels = ['m']\nheaders.default = { x-a = 'b' }";
        let catalog = load("openai.toml", text).unwrap();
        let profile = catalog.usable("openai").unwrap();
        assert_eq!(profile.upstream.url.authority.as_str(), "[::1]:8443");
        assert_eq!(profile.record.models.len(), 1);
        assert_eq!(profile.name, "OpenAI API");
        assert_eq!(profile.record.headers.default.len(), 1);
        let built_in = Catalog::load(None, BTreeSet::new()).unwrap();
        let built_in = built_in.usable("openai").unwrap();
        assert_eq!(profile.record.endpoints, built_in.record.endpoints);
    }

    #[test]
    fn a_new_file_adds_a_platform() {
        let text = "id = 'own'\nname = 'Own'\nowner = 'us'\ncredentials = ['api_key']\nendpoints.chat.generate.path \
                    = '/x'\n[upstream]\nbase_url = \
                    'http://127.0.0.1:1'\n[headers]\nset = { authorization = 'Bearer {credential}' }\nallow = []";
        assert_eq!(
            load("own.toml", text)
                .unwrap()
                .usable("own")
                .unwrap()
                .upstream
                .url
                .origin
                .port,
            1
        );
    }

    #[test]
    fn errors_name_the_file_and_the_place() {
        for (file, text, place) in [
            ("openai.toml", "models = [", "openai.toml:1:"),
            (
                "openai.toml",
                "\nmodells = []",
                "openai.toml:2: modells: unknown field",
            ),
            (
                "openai.toml",
                "\n[limits]\nrpm = 1\nstreams = 0",
                "openai.toml:4: limits.streams: ",
            ),
            (
                "openai.toml",
                "\nconcurrent_streams = 4",
                "openai.toml:2: concurrent_streams: expected streams in the table [limits]",
            ),
            (
                "openai.toml",
                "upstream.base_url = 7",
                "openai.toml:1: upstream.base_url: ",
            ),
            (
                "openai.toml",
                "upstream.base_url = 'ftp://x'",
                "upstream.base_url",
            ),
            (
                "openai.toml",
                "headers.set.authorization = \"a\\r\\nb\"",
                "headers.set.authorization",
            ),
            (
                "openai.toml",
                "models = 'sk-secret'",
                "openai.toml:1: models: expected a list",
            ),
            ("openai.toml", "models = [sk-secret", "openai.toml:1:"),
            (
                "openai.toml",
                "upstream.base_url = 'https//sk-secret'",
                "upstream.base_url: expected a URL",
            ),
            (
                "openai.toml",
                "verdicts = [{status = [418], verdict = 'sk-secret'}]",
                "verdicts[0]",
            ),
            (
                "openai.toml",
                "headers.set.host = '{credential}'",
                "openai.toml:1: headers.set.host: expected a header that does not frame",
            ),
            (
                "openai.toml",
                "headers.default.transfer-encoding = 'x'",
                "headers.default.transfer-encoding: ",
            ),
            (
                "openai.toml",
                "headers.allow = ['accept', 'x-envoy-*']",
                "headers.allow[1]",
            ),
            (
                "openai.toml",
                "headers.set.authorization = 'Bearer sk-secret'",
                "headers.set: expected a header with {credential}",
            ),
            (
                "openai.toml",
                "\n[[verdicts]]\nmessage = ['you are banned*']\nverdict = 'dead'\nreason = 'banned'",
                "openai.toml:2: verdicts[0]",
            ),
            (
                "openai.toml",
                "\n[[verdicts]]\nstatus = [400]\nverdict = 'dead'\nreason = 'banned'",
                "openai.toml:2: verdicts[0]",
            ),
            ("openai.toml", "id = 'other'", "id: expected \"openai\""),
            (
                "new.toml",
                "extends = 'openai-compatible'\n[upstream]\naccount_base_url = false",
                "new.toml:2: upstream.base_url: expected where the platform is",
            ),
            ("new.toml", "id = 'new'", "missing field"),
        ] {
            let message = load(file, text).unwrap_err().to_string();
            assert!(
                message.contains(file) && message.contains(place),
                "{text}: {message}"
            );
            assert!(!message.contains("sk-secret"), "{message}");
        }
        let message = load("openai.toml", [0xff, 0xfe]).unwrap_err().to_string();
        assert!(
            message.contains("openai.toml") && message.contains("UTF-8"),
            "{message}"
        );
    }

    /// Every file of a folder at once.
    fn load_all(files: &[(&str, &str)]) -> Result<Catalog, Error> {
        let folder = tempfile::tempdir().unwrap();
        for (file, text) in files {
            fs::write(folder.path().join(file), text).unwrap();
        }
        Catalog::load(Some(folder.path()), BTreeSet::new())
    }

    const DEEP: &str = "extends = 'openai-compatible'\nmodels = ['deep-1']\nupstream.base_url = 'https://deep.test'";

    #[test]
    fn an_openai_compatible_platform_is_three_lines() {
        let catalog = load("deep.toml", DEEP).unwrap();
        let profile = catalog.usable("deep").unwrap();
        assert_eq!(
            (&*profile.name, profile.upstream.url.origin.port),
            ("deep", 443)
        );
        assert_eq!(profile.record.owner.as_str(), "deep");
        let openai = catalog.usable("openai").unwrap();
        assert_eq!(profile.record.headers.set, openai.record.headers.set);
        assert_eq!(profile.record.quota, openai.record.quota);
        assert!(catalog.profile("openai-compatible").is_err());
        assert!(
            catalog
                .all_usable()
                .all(|one| one.id != "openai-compatible")
        );
    }

    #[test]
    fn what_a_platform_says_goes_before_what_it_extends() {
        let rule = "\n[[verdicts]]\nstatus = [418]\ncode = ['teapot']\nverdict = 'dead'\nreason = 'teapot'\n";
        let more = "[headers.default]\nx-a = 'b'\n[quota]\ntokens = false\n[quota.requests]\nlimit = 'x-limit'\n";
        let own = format!("{DEEP}\n{more}{rule}");
        let files = [
            ("deep.toml", &*own),
            ("openai-compatible.toml", "headers.default.x-b = 'c'"),
        ];
        let catalog = load_all(&files).unwrap();
        let record = &catalog.usable("deep").unwrap().record;
        assert_eq!(record.headers.default.len(), 2);
        let windows: Vec<_> = record.quota.iter().collect();
        assert_eq!(windows.len(), 1);
        let window = windows[0].1;
        let limit = window.limit.as_ref().unwrap().as_str();
        assert_eq!(
            (limit, window.remaining.is_some()),
            ("x-limit", true),
            "{window:?}"
        );
        let plain = load("deep.toml", DEEP).unwrap();
        let base = &plain.usable("deep").unwrap().record;
        assert_eq!(record.verdicts[1..], base.verdicts[..]);
        assert_eq!(record.models, base.models);
    }

    #[test]
    fn an_accent_is_that_of_its_models_and_the_first_counts() {
        let own = "[[accents]]\ndialect = 'chat'\nmodels = ['deep-1*']\nstrict = true\n\
                   [accents.effort]\nnone = { thinking = { type = 'disabled' } }\n";
        let base = "[[accents]]\ndialect = 'chat'\nstrict = false\nid_max = 40\n";
        let files = [
            ("deep.toml", &*format!("{DEEP}\n{own}")),
            ("openai-compatible.toml", base),
        ];
        let catalog = load_all(&files).unwrap();
        let endpoints = &catalog.usable("deep").unwrap().record.endpoints;
        let chat = endpoints.iter().find(|one| one.generates()).unwrap();
        let (own, other) = (chat.accent(&["deep-1-pro"]), chat.accent(&["other"]));
        assert!(own.flag("strict") && !other.flag("strict"));
        assert_eq!(own.effort("none").unwrap()["thinking"]["type"], "disabled");
        assert_eq!(own.number("id_max"), Some(40));
        let embeds = endpoints.iter().find(|one| !one.generates()).unwrap();
        assert!(embeds.accents.is_empty());
        let text = serde_json::to_string(chat).unwrap();
        let read: latchkey::snapshot::Endpoint = serde_json::from_str(&text).unwrap();
        assert_eq!(&read, chat);
    }

    #[test]
    fn an_accent_that_is_wrong_is_named_with_its_line() {
        for (accent, says) in [
            (
                "dialect = 'chat'\nstrikt = true",
                "deep.toml:6: accents[0].strikt: expected one of max_tokens_field",
            ),
            (
                "dialect = 'chat'\nsystem_role = 'boss'",
                "deep.toml:6: accents[0].system_role: expected one of system",
            ),
            (
                "dialect = 'klingon'",
                "deep.toml:5: accents[0].dialect: unknown variant",
            ),
            (
                "dialect = 'chat'\nmodels = ['*a']",
                "deep.toml:6: accents[0].models: expected a model",
            ),
            ("strict = true", "deep.toml:4: accents[0].dialect"),
        ] {
            let error = load("deep.toml", format!("{DEEP}\n[[accents]]\n{accent}")).unwrap_err();
            let error = error.to_string();
            assert!(error.contains(says), "{error}");
        }
    }

    #[test]
    fn false_takes_away_what_a_platform_extends() {
        let own = "auth = 'query'\nheaders.set.authorization = false\nquery.set.key = '{credential}'\n\
                   endpoints.chat.embed = false\nendpoints.messages.generate.path = '/m'";
        let catalog = load("deep.toml", format!("{DEEP}\n{own}")).unwrap();
        let record = &catalog.usable("deep").unwrap().record;
        assert!(record.headers.set.is_empty());
        let endpoints: Vec<_> = record
            .endpoints
            .iter()
            .map(|one| (one.dialect.word(), one.operation.as_str()))
            .collect();
        assert_eq!(endpoints, [("chat", "generate"), ("messages", "generate")]);
        let none = format!("{DEEP}\nendpoints.chat = false");
        let error = load("deep.toml", none).unwrap_err().to_string();
        assert!(
            error.contains("endpoints: expected one endpoint"),
            "{error}"
        );
    }

    #[test]
    fn limits_are_merged_and_false_takes_one_away() {
        let limits = |text: &str| {
            let catalog = load("codex.toml", text).unwrap();
            let profile = catalog.profile("codex").unwrap();
            serde_json::to_string(&profile.limits).unwrap()
        };
        assert_eq!(
            limits("limits.rpm = 7"),
            r#"{"requests_per_minute":7,"concurrent_streams":4}"#
        );
        assert_eq!(
            limits("limits = { streams = false, time_zone = 'UTC' }"),
            r#"{"time_zone":"UTC"}"#
        );
    }

    #[test]
    fn false_takes_a_way_in_away() {
        let ways = |own: &str| {
            let catalog = load("own.toml", format!("extends = 'codex'\n{own}")).unwrap();
            let login = &catalog.profile("own").unwrap().login;
            let device = login.device().map(|device| device.by_code.is_some());
            (login.code().is_some(), device)
        };
        assert_eq!(ways(""), (true, Some(true)));
        assert_eq!(ways("login.device = false"), (true, None));
        // A server of one's own may keep to RFC 8628.
        assert_eq!(ways("login.device.by_code = false"), (true, Some(false)));
        assert_eq!(ways("login.code = false"), (false, Some(true)));
    }

    /// A server of one's own is not known to be as lenient as the one that a profile below is about.
    #[test]
    fn the_life_of_refresh_tokens_goes_with_the_token_endpoint() {
        use crate::credential::Renewal;
        let base = "extends = 'codex'\noauth.refresh_token = 'reusable'";
        let files = |own: &'static str| [("base.toml", base), ("own.toml", own)];
        for (own, renewal) in [
            ("extends = 'base'", Renewal::Reusable),
            (
                "extends = 'base'\noauth.token_url = 'https://own.test/token'",
                Renewal::SingleUse,
            ),
            (
                "extends = 'base'\noauth.token_url = 'https://own.test/token'\noauth.refresh_token = 'reusable'",
                Renewal::Reusable,
            ),
        ] {
            let catalog = load_all(&files(own)).unwrap();
            let profile = catalog.profile("own").unwrap();
            let found = profile.oauth.as_ref().unwrap().renewal;
            assert_eq!(found, renewal, "{own}");
        }
    }

    #[test]
    fn a_profile_that_others_can_change_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let [profile, ca, token_ca, codex] = ["deep.toml", "ca.pem", "token-ca.pem", "codex.toml"]
            .map(|name| folder.path().join(name));
        let text = format!("{DEEP}\nupstream.ca_file = '{}'", ca.display());
        fs::write(&profile, text).unwrap();
        fs::write(&codex, format!("oauth.ca_file = '{}'", token_ca.display())).unwrap();
        for path in [&ca, &token_ca] {
            fs::write(path, "").unwrap();
        }
        let load = || Catalog::load(Some(folder.path()), BTreeSet::new());
        assert!(load().is_ok());
        for (path, before) in [
            (profile.as_path(), 0o644),
            (&ca, 0o644),
            (&token_ca, 0o644),
            (folder.path(), 0o755),
        ] {
            fs::set_permissions(path, fs::Permissions::from_mode(before | 0o022)).unwrap();
            let message = load().unwrap_err().to_string();
            assert!(message.starts_with(path.to_str().unwrap()), "{message}");
            fs::set_permissions(path, fs::Permissions::from_mode(before)).unwrap();
        }
    }

    #[test]
    fn a_platform_extends_what_there_is_and_not_itself() {
        let refused = |files: &[(&str, &str)]| load_all(files).unwrap_err().to_string();
        let unknown = refused(&[("a.toml", "models = []\nextends = 'b'")]);
        assert!(
            unknown.contains("a.toml:2: extends: expected one of a, anthropic"),
            "{unknown}"
        );
        let circle = refused(&[
            ("a.toml", "extends = 'b'"),
            ("b.toml", "name = 'B'\nextends = 'a'"),
        ]);
        assert!(
            circle.contains("b.toml:2: extends: ") && circle.contains("a extends b extends a"),
            "{circle}"
        );
        let itself = refused(&[("a.toml", "extends = 'a'")]);
        assert!(itself.contains("a extends a"), "{itself}");
        let number = refused(&[("a.toml", "\n\nextends = 7")]);
        assert!(number.contains("a.toml:3: extends: "), "{number}");
    }

    #[test]
    fn an_error_is_where_the_value_was_written() {
        let rule = "\n[[verdicts]]\nstatus = [418]\nverdict = 'fine'\n";
        let text = format!("{DEEP}\n{rule}{rule}seconds = 5");
        let own = load("deep.toml", &text).unwrap_err().to_string();
        assert!(own.contains("deep.toml:12: verdicts[1].seconds: "), "{own}");
        let files = [
            ("deep.toml", DEEP),
            (
                "openai-compatible.toml",
                "\n[headers.set]\nauthorization = 'Bearer {'",
            ),
        ];
        let below = load_all(&files).unwrap_err().to_string();
        assert!(
            below.contains("openai-compatible.toml:3: headers.set.authorization: "),
            "{below}"
        );
    }

    #[test]
    fn terms_come_before_use() {
        let catalog = Catalog::load(None, BTreeSet::new()).unwrap();
        let message = catalog.usable("codex").unwrap_err().to_string();
        assert!(message.contains("OpenAI's terms"), "{message}");
        let mut usable = catalog.all_usable().map(|profile| profile.id.as_str());
        assert!(usable.all(|id| id != "codex"));
        assert!(catalog.all_usable().count() > 0);
        assert!(
            Catalog::load(None, BTreeSet::from(["codex".into()]))
                .unwrap()
                .usable("codex")
                .is_ok()
        );
        assert!(
            catalog
                .usable("nope")
                .unwrap_err()
                .to_string()
                .contains("anthropic, azure-openai")
        );
    }

    #[test]
    fn a_file_is_checked_as_if_it_were_in_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::write(&path, text).unwrap();
            path
        };
        let file = write("deep.toml", DEEP);
        let check = |folder: Option<&Path>, file: &Path| Catalog::check(folder, file);
        let Checked::Platform(profile) = check(None, &file).unwrap() else {
            panic!("it is a platform");
        };
        assert_eq!(profile.id, "deep");
        // In the folder is one of that name that does not fit: this one takes its place.
        let other = tempfile::tempdir().unwrap();
        fs::write(other.path().join("deep.toml"), "modells = []").unwrap();
        assert!(check(Some(other.path()), &file).is_ok());
        let base = write(
            "base.toml",
            "abstract = true\nextends = 'openai-compatible'",
        );
        assert!(matches!(check(None, &base), Ok(Checked::Base)));
        let bad = write("bad.toml", &format!("{DEEP}\nmodells = []"));
        let error = check(None, &bad).unwrap_err().to_string();
        assert!(
            error.contains("bad.toml:4: modells: unknown field"),
            "{error}"
        );
        assert!(check(None, &folder.path().join("none.toml")).is_err());
    }

    #[test]
    fn a_platform_is_known_with_its_files() {
        let catalog = load("openai.toml", "headers.default.x-a = 'b'").unwrap();
        let mut all = catalog.written();
        let (_, written) = all.find(|(profile, _)| profile.id == "openai").unwrap();
        let names: Vec<_> = written
            .files
            .iter()
            .map(|file| file.file_name().unwrap())
            .collect();
        let built_in = [
            "(built in) openai.toml",
            "(built in) openai-compatible.toml",
        ];
        assert_eq!(names, [&["openai.toml"], &built_in[..]].concat());
        assert_eq!(written.own_files().count(), 1);
        assert_eq!(
            written.table["headers"]["default"]["x-a"].as_str(),
            Some("b")
        );
    }

    #[test]
    fn a_credential_goes_out_once_at_each_endpoint() {
        let both = format!("{DEEP}\nheaders.set.api-key = '{{credential}}'");
        let message = load("deep.toml", &both).unwrap_err().to_string();
        assert!(
            message.contains("expected one header of headers.set"),
            "{message}"
        );
        let omitted = format!(
            "{both}\nendpoints.chat.embed = false\nendpoints.chat.generate.omit = ['api-key']"
        );
        assert!(load("deep.toml", &omitted).is_ok());
    }
}
