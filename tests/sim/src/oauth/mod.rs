//! The OAuth server as a state machine: users, authorization codes, refresh token families and
//! access tokens. It does what OpenAI's was seen to do for Codex CLI; it does no HTTP and reads no clock.
//!
//! A *family* is one login: its refresh tokens replace one another, and at most one of them is live.
//! State lives as long as the process, or in a file (`crate::kept`), and is bounded by what a test run logs in and refreshes.

mod authorize;
mod device;
mod jwt;
mod token;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap, VecDeque};

use rand::{Rng, RngCore, SeedableRng, rngs::StdRng};
use serde::{Deserialize, Serialize};

use crate::clock::UnixMillis;

pub use authorize::{AuthorizeOutcome, AuthorizeRequest};
pub use device::{
    CodeGrant, DEVICE_CODE_LIFETIME_SECONDS, DeviceCode, DeviceError, INTERVAL_SECONDS,
};
#[cfg(test)]
pub(crate) use token::challenge;
pub use token::{TokenError, TokenSet};

/// The client id of Codex.
pub const CLIENT_ID: &str = "app_EMoamEEZ73f0CkXaXp7hrann";

/// Seconds in which an authorization code can be exchanged.
pub const CODE_LIFETIME_SECONDS: u64 = 60;

/// Spent refresh tokens that a family remembers; a replay of an older one is an unknown token.
const MAX_SPENT_TOKENS: usize = 1024;

/// Seconds that an expired access token is remembered, so that its use is known as such.
const EXPIRED_TOKEN_MEMORY_SECONDS: u64 = 3600;

/// Somebody who can log in.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct User {
    /// The user's name everywhere in the simulator.
    pub email: String,
    /// `chatgpt_account_id` in the tokens.
    pub account_id: String,
    /// `chatgpt_plan_type` in the tokens.
    #[serde(default = "default_plan")]
    pub plan: String,
    /// Lifetime of access tokens; absent: the policy's.
    #[serde(default)]
    pub access_lifetime_seconds: Option<u64>,
}

fn default_plan() -> String {
    "plus".to_owned()
}

/// A client that buys access tokens with its own secret (RFC 6749 §4.4).
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Client {
    /// Its id.
    pub client_id: String,
    /// Its secret.
    pub client_secret: String,
    /// Whose account its tokens are for.
    pub email: String,
}

/// The settings of the server that tests may change.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Policy {
    /// Seconds in which a replayed refresh token is answered with the same new pair; 0: never.
    pub grace_seconds: u64,
    /// Take any port in the redirect URI, not only the real allow-list's.
    pub any_redirect_port: bool,
    /// Lifetime of access tokens of users that have none of their own.
    pub default_access_lifetime_seconds: u64,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            grace_seconds: 0,
            any_redirect_port: false,
            default_access_lifetime_seconds: 3600,
        }
    }
}

/// The server.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct OAuth {
    /// The settings that tests may change.
    pub policy: Policy,
    users: BTreeMap<String, User>,
    codes: HashMap<String, Code>,
    devices: Vec<device::DeviceLogin>,
    /// Clients with a secret of their own, by id.
    clients: HashMap<String, Client>,
    families: Vec<Family>,
    refresh_tokens: HashMap<String, FamilyId>,
    access_tokens: HashMap<String, AccessToken>,
    #[serde(skip, default = "StdRng::from_os_rng")]
    rng: StdRng,
}

/// Whose login it is, which its tokens show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Maker {
    /// OpenAI, for Codex CLI: tokens are JWTs.
    #[default]
    OpenAi,
    /// Anthropic, for Claude Code: tokens say nothing.
    Anthropic,
}

/// An authorization code that is to be issued.
pub(crate) struct NewCode<'a> {
    pub email: &'a str,
    pub redirect_uri: &'a str,
    pub challenge: &'a str,
    pub state: &'a str,
    pub maker: Maker,
}

/// Names one login.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FamilyId(usize);

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Code {
    email: String,
    redirect_uri: String,
    challenge: String,
    expires_at: UnixMillis,
    /// The family that the code was exchanged for.
    exchanged: Option<FamilyId>,
    #[serde(default)]
    state: String,
    #[serde(default)]
    maker: Maker,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Family {
    email: String,
    /// None: revoked.
    live: Option<String>,
    spent: VecDeque<SpentToken>,
    #[serde(default)]
    maker: Maker,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct SpentToken {
    token: String,
    at: UnixMillis,
    successor: TokenSet,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct AccessToken {
    email: String,
    family: FamilyId,
    expires_at: UnixMillis,
    revoked: bool,
}

/// The platform's opinion of an access token.
#[derive(Clone, Debug)]
pub enum Access {
    /// Good; the user that it was issued to.
    Valid(User),
    /// Past its time.
    Expired(User),
    /// Invalidated before its time.
    Revoked(User),
    /// Never issued, or forgotten.
    Unknown,
}

impl OAuth {
    /// A server without users. The seed makes its tokens reproducible in tests.
    pub fn new(seed: u64) -> Self {
        Self {
            policy: Policy::default(),
            users: BTreeMap::new(),
            codes: HashMap::new(),
            devices: Vec::new(),
            clients: HashMap::new(),
            families: Vec::new(),
            refresh_tokens: HashMap::new(),
            access_tokens: HashMap::new(),
            rng: StdRng::seed_from_u64(seed),
        }
    }

    /// Adds or replaces a user; tokens already issued stay as they are.
    pub fn upsert_user(&mut self, user: User) {
        self.users.insert(user.email.clone(), user);
    }

    /// Adds or replaces a client; tokens already issued stay as they are.
    pub fn upsert_client(&mut self, client: Client) {
        self.clients.insert(client.client_id.clone(), client);
    }

    /// Whose account the tokens of that client are for.
    pub fn client_owner(&self, client_id: &str) -> Option<&str> {
        self.clients
            .get(client_id)
            .map(|client| client.email.as_str())
    }

    /// The user of that email.
    pub fn user(&self, email: &str) -> Option<&User> {
        self.users.get(email)
    }

    /// The emails of all users, in order.
    pub fn emails(&self) -> impl Iterator<Item = &str> {
        self.users.keys().map(String::as_str)
    }

    /// The platform's opinion of that access token.
    pub fn access(&self, token: &str, now: UnixMillis) -> Access {
        let Some(access) = self.access_tokens.get(token) else {
            return Access::Unknown;
        };
        let Some(user) = self.users.get(&access.email).cloned() else {
            return Access::Unknown;
        };
        if access.revoked {
            Access::Revoked(user)
        } else if access.expires_at <= now {
            Access::Expired(user)
        } else {
            Access::Valid(user)
        }
    }

    /// Makes the user's access tokens expired from now on. Returns how many there were.
    pub fn expire_access(&mut self, email: &str, now: UnixMillis) -> usize {
        self.change_access(email, |access| {
            access.expires_at = access.expires_at.min(now)
        })
    }

    /// Invalidates the user's access tokens. Returns how many there were.
    pub fn revoke_access(&mut self, email: &str) -> usize {
        self.change_access(email, |access| access.revoked = true)
    }

    /// Invalidates every refresh token of the user. Returns how many logins that ended.
    pub fn revoke_login(&mut self, email: &str) -> usize {
        self.families
            .iter_mut()
            .filter(|family| family.email == email)
            .filter_map(|family| family.live.take())
            .count()
    }

    /// The login that a refresh token belongs to, and whose login it is.
    pub fn family(&self, refresh_token: &str) -> Option<(FamilyId, &str)> {
        let id = *self.refresh_tokens.get(refresh_token)?;
        Some((id, self.families.get(id.0)?.email.as_str()))
    }

    /// Whose code this is.
    pub fn code_owner(&self, code: &str) -> Option<&str> {
        self.codes.get(code).map(|code| code.email.as_str())
    }

    /// The state of the request that this code answers.
    pub fn code_state(&self, code: &str) -> Option<&str> {
        self.codes.get(code).map(|code| code.state.as_str())
    }

    fn change_access(&mut self, email: &str, change: impl Fn(&mut AccessToken)) -> usize {
        self.access_tokens
            .values_mut()
            .filter(|access| access.email == email)
            .map(change)
            .count()
    }

    /// `prefix` and 32 random bytes as base64url.
    fn random_token(&mut self, prefix: &str) -> String {
        let mut bytes = [0; 32];
        self.rng.fill_bytes(&mut bytes);
        format!("{prefix}{}", jwt::base64url(&bytes))
    }

    /// Random lower-case hex digits for ids in answers.
    pub fn random_id(&mut self) -> String {
        format!("{:032x}", self.rng.random::<u128>())
    }
}
