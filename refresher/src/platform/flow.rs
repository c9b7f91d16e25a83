//! `[login]` of a profile: the ways in that a platform offers, as data. What each does is in `login`, one file a way.

use std::collections::BTreeMap;
use std::net::IpAddr;

use reqwest::Url;
use serde::Deserialize;

pub use super::session::{Done, Session, Source};
use super::{Invalid, invalid, session, web_url};
use crate::credential::CredentialKind;

/// A way to log in.
#[derive(Debug, Clone)]
pub enum Flow {
    /// An authorization code that the browser brings to a listener on this machine (RFC 8252 §7.3).
    Code(Code),
    /// An authorization code that a person pastes.
    Pasted(Pasted),
    /// A code that a person types in at the platform: RFC 8628, or as Codex CLI does it.
    Device(Device),
    /// A client of the account's own, which buys tokens with its secret (RFC 6749 §4.4).
    Client,
    /// A page of the platform at which a person logs in, in a browser that is opened for it.
    Session(Session),
    /// A login that another program made, in its credential file.
    Import(Import),
}

/// The authorization request of a platform (RFC 6749 §4.1.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authorize {
    /// RFC 6749 §3.1.
    pub url: Url,
    /// More parameters of the request.
    pub params: BTreeMap<String, String>,
    /// Text that the server may append to the state, with a word behind it.
    pub state_suffix: Option<String>,
}

/// See [`Flow::Code`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Code {
    /// The request.
    pub authorize: Authorize,
    /// The host of the redirect URI: a loopback address or `localhost`.
    pub redirect_host: String,
    /// Ports to try in order; 0 lets the operating system choose.
    pub redirect_ports: Vec<u16>,
    /// The path of the redirect URI.
    pub redirect_path: String,
}

/// See [`Flow::Pasted`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pasted {
    /// The request.
    pub authorize: Authorize,
    /// The address at which the browser ends; the code is shown there, or stands in the address.
    pub redirect_uri: String,
}

/// See [`Flow::Device`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// The device authorization endpoint (RFC 8628 §3.1).
    pub authorize_url: Url,
    /// The rest of a login that ends with an authorization code; none where it is RFC 8628's.
    pub by_code: Option<DeviceByCode>,
}

/// A device login as OpenAI has it for Codex CLI: the person's consent gives an authorization code, and the server its
/// PKCE verifier.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceByCode {
    /// The page at which a person types the code in.
    pub page: Url,
    /// The endpoint that is asked until they have.
    pub poll_url: Url,
    /// The redirect URI with which the authorization code is redeemed. No browser comes there.
    pub redirect_uri: String,
}

/// See [`Flow::Import`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Import {
    /// The form of the platform's own file.
    pub file: CredentialFile,
    /// The platform of the API keys that such a file may hold in place of a login.
    pub key_platform: Option<String>,
    /// The names that files have for this platform.
    pub known_as: Vec<String>,
}

/// The form of a credential file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CredentialFile {
    /// Codex CLI's `auth.json`.
    Codex,
    /// Claude Code's `.credentials.json`.
    Claude,
    /// Gemini CLI's `oauth_creds.json`, and Qwen Code's.
    Gemini,
}

/// A need of an account at its platform, beside a login.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Setup {
    /// A Google Cloud project, which Google's Code Assist tells, or its operator.
    CodeAssist,
}

/// The account variable that has that project.
pub const PROJECT: &str = "project";

/// The meaning of a refusal of the authorization server, where its own words do not tell a person.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Explanation {
    /// The `error` that it is about.
    pub error: String,
    /// Text that the `error_description` contains.
    pub contains: String,
    /// The text to say instead.
    pub means: String,
}

/// The ways in to a platform, the most comfortable first.
#[derive(Debug, Clone, Default)]
pub struct WaysIn {
    /// At most one of each kind.
    pub flows: Vec<Flow>,
    /// For refusals that need words.
    pub explanations: Vec<Explanation>,
    /// The need that is met once a person has logged in.
    pub setup: Option<Setup>,
}

impl Code {
    /// The redirect URI of a login that listens on `port`.
    pub fn redirect_uri(&self, port: u16) -> String {
        format!("http://{}:{port}{}", self.redirect_host, self.redirect_path)
    }
}

impl Flow {
    /// The kind of credential that it gives.
    pub fn gives(&self) -> CredentialKind {
        match self {
            Flow::Code(_) | Flow::Pasted(_) | Flow::Device(_) | Flow::Import(_) => {
                CredentialKind::OAuth
            }
            Flow::Client => CredentialKind::ClientCredentials,
            Flow::Session(_) => CredentialKind::Session,
        }
    }
}

impl Setup {
    /// The account variable that it finds.
    pub fn var(self) -> &'static str {
        match self {
            Setup::CodeAssist => PROJECT,
        }
    }
}

impl WaysIn {
    /// The login with a listener, where the platform has one.
    pub fn code(&self) -> Option<&Code> {
        self.flows.iter().find_map(|flow| match flow {
            Flow::Code(code) => Some(code),
            _ => None,
        })
    }

    /// The login by a pasted code, where the platform has one.
    pub fn pasted(&self) -> Option<&Pasted> {
        self.flows.iter().find_map(|flow| match flow {
            Flow::Pasted(pasted) => Some(pasted),
            _ => None,
        })
    }

    /// The login by a device code, where the platform has one.
    pub fn device(&self) -> Option<&Device> {
        self.flows.iter().find_map(|flow| match flow {
            Flow::Device(device) => Some(device),
            _ => None,
        })
    }

    /// The login at a page of the platform's own, where it has one.
    pub fn session(&self) -> Option<&Session> {
        self.flows.iter().find_map(|flow| match flow {
            Flow::Session(session) => Some(session),
            _ => None,
        })
    }

    /// The way in from the files of other programs, where the platform has it.
    pub fn import(&self) -> Option<&Import> {
        self.flows.iter().find_map(|flow| match flow {
            Flow::Import(import) => Some(import),
            _ => None,
        })
    }
}

/// `[login]` as written.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Raw {
    code: Option<RawCode>,
    pasted: Option<RawPasted>,
    device: Option<RawDevice>,
    client_credentials: Option<RawClient>,
    session: Option<session::Raw>,
    import: Option<RawImport>,
    setup: Option<Setup>,
    #[serde(default)]
    explanations: Vec<Explanation>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawCode {
    authorize_url: String,
    #[serde(default)]
    authorize_params: BTreeMap<String, String>,
    state_suffix: Option<String>,
    redirect_host: String,
    redirect_ports: Vec<u16>,
    redirect_path: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPasted {
    authorize_url: String,
    #[serde(default)]
    authorize_params: BTreeMap<String, String>,
    state_suffix: Option<String>,
    redirect_uri: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawDevice {
    authorize_url: String,
    by_code: Option<RawDeviceByCode>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawDeviceByCode {
    page: String,
    poll_url: String,
    redirect_uri: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawClient {}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawImport {
    file: CredentialFile,
    key_platform: Option<String>,
    #[serde(default)]
    known_as: Vec<String>,
}

impl Raw {
    /// Checks each way. One whose credential the platform does not take, from a profile that it extends, is not offered. A
    /// platform with a listener and no page that shows the code lets people paste the address that
    /// the browser would have brought to the listener.
    pub(super) fn check(self, taken: &[CredentialKind]) -> Result<WaysIn, Invalid> {
        let code = self.code.map(RawCode::check).transpose()?;
        let device = self.device.map(RawDevice::check).transpose()?;
        let session = self.session.map(session::Raw::check).transpose()?;
        let pasted = match (self.pasted, &code) {
            (Some(pasted), _) => Some(pasted.check()?),
            (None, Some(code)) => Some(Pasted {
                authorize: code.authorize.clone(),
                redirect_uri: code
                    .redirect_uri(code.redirect_ports.first().copied().unwrap_or_default()),
            }),
            (None, None) => None,
        };
        let flows = [
            code.map(Flow::Code),
            device.map(Flow::Device),
            pasted.map(Flow::Pasted),
            self.client_credentials.map(|RawClient {}| Flow::Client),
            session.map(Flow::Session),
            self.import.map(|raw| {
                Flow::Import(Import {
                    file: raw.file,
                    key_platform: raw.key_platform,
                    known_as: raw.known_as,
                })
            }),
        ];
        Ok(WaysIn {
            flows: flows
                .into_iter()
                .flatten()
                .filter(|flow| taken.contains(&flow.gives()))
                .collect(),
            explanations: self.explanations,
            setup: self.setup,
        })
    }
}

impl RawCode {
    fn check(self) -> Result<Code, Invalid> {
        let loopback = self
            .redirect_host
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback());
        if !loopback && self.redirect_host != "localhost" {
            return Err(invalid(
                "login.code.redirect_host",
                "expected a loopback address or localhost",
            ));
        }
        if self.redirect_ports.is_empty() {
            return Err(invalid(
                "login.code.redirect_ports",
                "expected one port at least; 0 lets the system choose",
            ));
        }
        if !self.redirect_path.starts_with('/') {
            return Err(invalid(
                "login.code.redirect_path",
                "expected a path that starts with /",
            ));
        }
        Ok(Code {
            authorize: Authorize {
                url: web_url("login.code.authorize_url", &self.authorize_url)?,
                params: self.authorize_params,
                state_suffix: self.state_suffix,
            },
            redirect_host: self.redirect_host,
            redirect_ports: self.redirect_ports,
            redirect_path: self.redirect_path,
        })
    }
}

impl RawPasted {
    fn check(self) -> Result<Pasted, Invalid> {
        web_url("login.pasted.redirect_uri", &self.redirect_uri)?;
        Ok(Pasted {
            authorize: Authorize {
                url: web_url("login.pasted.authorize_url", &self.authorize_url)?,
                params: self.authorize_params,
                state_suffix: self.state_suffix,
            },
            redirect_uri: self.redirect_uri,
        })
    }
}

impl RawDevice {
    fn check(self) -> Result<Device, Invalid> {
        Ok(Device {
            authorize_url: web_url("login.device.authorize_url", &self.authorize_url)?,
            by_code: self.by_code.map(RawDeviceByCode::check).transpose()?,
        })
    }
}

impl RawDeviceByCode {
    fn check(self) -> Result<DeviceByCode, Invalid> {
        web_url("login.device.by_code.redirect_uri", &self.redirect_uri)?;
        Ok(DeviceByCode {
            page: web_url("login.device.by_code.page", &self.page)?,
            poll_url: web_url("login.device.by_code.poll_url", &self.poll_url)?,
            redirect_uri: self.redirect_uri,
        })
    }
}
