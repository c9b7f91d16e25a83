//! `GET /oauth/authorize`: checks the request as the real server would and issues a code.

use url::{Host, Url};

use super::{CLIENT_ID, CODE_LIFETIME_SECONDS, Code, Maker, NewCode, OAuth};
use crate::clock::UnixMillis;

/// Ports of the redirect URIs that are registered for the client.
const REDIRECT_PORTS: [u16; 2] = [1455, 1457];

/// Path of the redirect URIs that are registered for the client.
const REDIRECT_PATH: &str = "/auth/callback";

/// The scopes that the client may ask for.
const SCOPES: &[&str] = &[
    "api.connectors.invoke",
    "api.connectors.read",
    "email",
    "offline_access",
    "openid",
    "profile",
];

/// The query of an authorization request, in its order.
#[derive(Debug)]
pub struct AuthorizeRequest(pub Vec<(String, String)>);

/// The page or redirect that the browser gets.
#[derive(Debug, PartialEq, Eq)]
pub enum AuthorizeOutcome {
    /// Back to the client, with a code or an error.
    Redirect(String),
    /// Nobody was named: these emails can log in.
    ChooseUser(Vec<String>),
    /// The request cannot be trusted, so the client is not told (RFC 6749 §4.1.2.1).
    Refused(&'static str),
}

impl AuthorizeRequest {
    fn value(&self, name: &str) -> Option<&str> {
        let mut values = self.0.iter().filter(|(key, _)| key == name);
        match (values.next(), values.next()) {
            (Some((_, value)), None) if !value.is_empty() => Some(value),
            _ => None,
        }
    }
}

impl OAuth {
    /// Answers an authorization request.
    ///
    /// Beside the parameters of the protocol, `sim_user` names who logs in, and `sim_error` makes
    /// the answer that OAuth error.
    pub fn authorize(&mut self, request: &AuthorizeRequest, now: UnixMillis) -> AuthorizeOutcome {
        if request.value("client_id") != Some(CLIENT_ID) {
            return AuthorizeOutcome::Refused("unknown client_id");
        }
        let redirect_uri = request.value("redirect_uri").unwrap_or_default();
        let Some(target) = self.registered_redirect(redirect_uri) else {
            return AuthorizeOutcome::Refused("redirect_uri is not registered");
        };
        let Some(state) = request.value("state") else {
            return AuthorizeOutcome::Refused("state is missing");
        };
        let back = |pairs: &[(&str, &str)]| {
            let mut target = target.clone();
            target
                .query_pairs_mut()
                .extend_pairs(pairs)
                .append_pair("state", state);
            AuthorizeOutcome::Redirect(target.into())
        };
        if let Err((error, description)) = check_protocol(request) {
            return back(&[("error", error), ("error_description", description)]);
        }
        if let Some(error) = request.value("sim_error") {
            return back(&[
                ("error", error),
                ("error_description", "asked for by sim_error"),
            ]);
        }
        let Some(email) = request.value("sim_user") else {
            return AuthorizeOutcome::ChooseUser(self.users.keys().cloned().collect());
        };
        if !self.users.contains_key(email) {
            return AuthorizeOutcome::Refused("no such sim_user");
        }
        let code = NewCode {
            email,
            redirect_uri,
            challenge: request.value("code_challenge").unwrap_or_default(),
            state,
            maker: Maker::OpenAi,
        };
        let code = self.issue_code(&code, now);
        let scope = request.value("scope").unwrap_or_default();
        back(&[("code", &code), ("scope", scope)])
    }

    /// Issues a code to a user who has said yes.
    pub(crate) fn issue_code(&mut self, new: &NewCode<'_>, now: UnixMillis) -> String {
        let code = self.random_token("ac_");
        self.codes.retain(|_, code| code.expires_at > now);
        self.codes.insert(
            code.clone(),
            Code {
                email: new.email.to_owned(),
                redirect_uri: new.redirect_uri.to_owned(),
                challenge: new.challenge.to_owned(),
                expires_at: now.plus_seconds(CODE_LIFETIME_SECONDS),
                exchanged: None,
                state: new.state.to_owned(),
                maker: new.maker,
            },
        );
        code
    }

    fn registered_redirect(&self, redirect_uri: &str) -> Option<Url> {
        let url = Url::parse(redirect_uri).ok()?;
        let loopback = match url.host()? {
            Host::Domain(domain) => domain == "localhost",
            Host::Ipv4(address) => address.is_loopback(),
            Host::Ipv6(_) => false,
        };
        let port = self.policy.any_redirect_port
            || url
                .port()
                .is_some_and(|port| REDIRECT_PORTS.contains(&port));
        let plain = url.scheme() == "http" && url.path() == REDIRECT_PATH && url.query().is_none();
        (loopback && port && plain).then_some(url)
    }
}

/// The checks whose failure the client is told about.
fn check_protocol(request: &AuthorizeRequest) -> Result<(), (&'static str, &'static str)> {
    /// Length of base64url(SHA-256) without padding.
    const CHALLENGE_LENGTH: usize = 43;
    if request.value("response_type") != Some("code") {
        return Err(("unsupported_response_type", "response_type must be code"));
    }
    if request.value("code_challenge_method") != Some("S256") {
        return Err(("invalid_request", "code_challenge_method must be S256"));
    }
    if request.value("code_challenge").map(str::len) != Some(CHALLENGE_LENGTH) {
        return Err(("invalid_request", "code_challenge must be 43 characters"));
    }
    let scopes = request.value("scope").unwrap_or_default();
    if !scopes.split(' ').any(|scope| scope == "openid")
        || !scopes.split(' ').all(|scope| SCOPES.contains(&scope))
    {
        return Err((
            "invalid_scope",
            "scope must hold openid and only known scopes",
        ));
    }
    Ok(())
}
