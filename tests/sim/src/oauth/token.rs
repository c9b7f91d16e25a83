//! `POST /oauth/token` and `/oauth/revoke`: code exchange, rotation with reuse detection,
//! token exchange for an API key, revocation.

use rand::RngCore;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{
    AccessToken, EXPIRED_TOKEN_MEMORY_SECONDS, Family, FamilyId, MAX_SPENT_TOKENS, Maker, OAuth,
    SpentToken, User, jwt,
};
use crate::clock::UnixMillis;

/// One answer of the token endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenSet {
    /// JWT; at Anthropic opaque.
    pub access_token: String,
    /// JWT; at Anthropic empty.
    pub id_token: String,
    /// Opaque.
    pub refresh_token: String,
    /// Lifetime of the access token when it was issued.
    pub expires_in: u64,
}

/// The reason for which the token endpoint says no.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenError {
    /// Bad code, verifier, redirect URI, subject token, or unknown refresh token.
    InvalidGrant,
    /// The refresh token is empty.
    EmptyRefreshToken,
    /// The refresh token was spent before; the family is revoked now.
    Reused,
    /// The family was revoked before.
    Invalidated,
}

impl OAuth {
    /// Exchanges an authorization code. A second exchange of a code revokes what the first gave
    /// (RFC 6749 §4.1.2).
    pub fn exchange_code(
        &mut self,
        code: &str,
        redirect_uri: &str,
        verifier: &str,
        now: UnixMillis,
    ) -> Result<TokenSet, TokenError> {
        let grant = self.codes.get(code).ok_or(TokenError::InvalidGrant)?;
        if let Some(FamilyId(family)) = grant.exchanged {
            self.families[family].live = None;
            return Err(TokenError::InvalidGrant);
        }
        let verified = challenge(verifier).as_deref() == Some(grant.challenge.as_str());
        if grant.expires_at <= now || grant.redirect_uri != redirect_uri || !verified {
            return Err(TokenError::InvalidGrant);
        }
        let (email, maker) = (grant.email.clone(), grant.maker);
        let family = self.new_family(&email, maker);
        if let Some(grant) = self.codes.get_mut(code) {
            grant.exchanged = Some(family);
        }
        self.issue(&email, family, now)
    }

    /// Gives a user the first tokens of a login.
    pub(crate) fn log_in(&mut self, email: &str, now: UnixMillis) -> Result<TokenSet, TokenError> {
        let family = self.new_family(email, Maker::OpenAi);
        self.issue(email, family, now)
    }

    /// Gives a client an access token and its lifetime; None if the secret is not its.
    pub fn mint(
        &mut self,
        client_id: &str,
        client_secret: &str,
        now: UnixMillis,
    ) -> Option<(String, u64)> {
        let client = self.clients.get(client_id)?;
        if client.client_secret != client_secret {
            return None;
        }
        let email = client.email.clone();
        let family = self.new_family(&email, Maker::OpenAi);
        self.issue_access(&email, family, now).ok()
    }

    fn new_family(&mut self, email: &str, maker: Maker) -> FamilyId {
        self.families.push(Family {
            email: email.to_owned(),
            live: None,
            spent: Default::default(),
            maker,
        });
        FamilyId(self.families.len() - 1)
    }

    /// Rotates a refresh token. A replay outside the grace window revokes the family.
    pub fn refresh(&mut self, token: &str, now: UnixMillis) -> Result<TokenSet, TokenError> {
        if token.is_empty() {
            return Err(TokenError::EmptyRefreshToken);
        }
        let FamilyId(index) = *self
            .refresh_tokens
            .get(token)
            .ok_or(TokenError::InvalidGrant)?;
        let family = &mut self.families[index];
        let live = family.live.as_deref().ok_or(TokenError::Invalidated)?;
        if live != token {
            let spent = family.spent.iter().find(|spent| spent.token == token);
            if let Some(spent) = spent
                && now < spent.at.plus_seconds(self.policy.grace_seconds)
                && spent.successor.refresh_token == live
            {
                return Ok(spent.successor.clone());
            }
            family.live = None;
            return Err(TokenError::Reused);
        }
        let email = family.email.clone();
        let successor = self.issue(&email, FamilyId(index), now)?;
        let family = &mut self.families[index];
        family.spent.push_back(SpentToken {
            token: token.to_owned(),
            at: now,
            successor: successor.clone(),
        });
        if family.spent.len() > MAX_SPENT_TOKENS
            && let Some(forgotten) = family.spent.pop_front()
        {
            self.refresh_tokens.remove(&forgotten.token);
        }
        Ok(successor)
    }

    /// An access token, and its lifetime, for a refresh token that is not rotated.
    pub fn renew(&mut self, token: &str, now: UnixMillis) -> Result<(String, u64), TokenError> {
        let family = *self
            .refresh_tokens
            .get(token)
            .ok_or(TokenError::InvalidGrant)?;
        let login = &self.families[family.0];
        if login.live.as_deref() != Some(token) {
            return Err(TokenError::InvalidGrant);
        }
        let email = login.email.clone();
        self.issue_access(&email, family, now)
    }

    /// Revokes the login of a refresh token with its access tokens, or one access token.
    /// Returns whether the token was known (RFC 7009 §2.2 answers 200 either way).
    pub fn revoke(&mut self, token: &str) -> bool {
        if let Some(&family) = self.refresh_tokens.get(token) {
            self.families[family.0].live = None;
            for access in self.access_tokens.values_mut() {
                access.revoked |= access.family == family;
            }
            return true;
        }
        match self.access_tokens.get_mut(token) {
            Some(access) => {
                access.revoked = true;
                true
            }
            None => false,
        }
    }

    /// Checks the ID token of a token exchange and makes an API key for its user.
    pub fn exchange_for_api_key(&mut self, id_token: &str) -> Result<(User, String), TokenError> {
        let email = jwt_email(id_token).ok_or(TokenError::InvalidGrant)?;
        let user = self
            .users
            .get(&email)
            .cloned()
            .ok_or(TokenError::InvalidGrant)?;
        Ok((user, self.random_token("sk-sim-")))
    }

    fn issue(
        &mut self,
        email: &str,
        family: FamilyId,
        now: UnixMillis,
    ) -> Result<TokenSet, TokenError> {
        let (access_token, expires_in) = self.issue_access(email, family, now)?;
        let user = self
            .users
            .get(email)
            .cloned()
            .ok_or(TokenError::InvalidGrant)?;
        let (id_token, refresh_token) = match self.families[family.0].maker {
            Maker::OpenAi => {
                let jti = self.random_id();
                let id_token = self.sign(&jwt::id_claims(&user, now, expires_in, &jti));
                (id_token, self.random_token("rt_"))
            }
            Maker::Anthropic => (String::new(), self.random_token("sk-ant-ort01-")),
        };
        let set = TokenSet {
            access_token,
            id_token,
            refresh_token,
            expires_in,
        };
        self.refresh_tokens
            .insert(set.refresh_token.clone(), family);
        self.families[family.0].live = Some(set.refresh_token.clone());
        Ok(set)
    }

    /// An access token of a user, and its lifetime in seconds.
    fn issue_access(
        &mut self,
        email: &str,
        family: FamilyId,
        now: UnixMillis,
    ) -> Result<(String, u64), TokenError> {
        let user = self
            .users
            .get(email)
            .cloned()
            .ok_or(TokenError::InvalidGrant)?;
        let lifetime = user
            .access_lifetime_seconds
            .unwrap_or(self.policy.default_access_lifetime_seconds);
        let token = match self.families[family.0].maker {
            Maker::OpenAi => {
                let jti = self.random_id();
                self.sign(&jwt::access_claims(&user, now, lifetime, &jti))
            }
            Maker::Anthropic => self.random_token("sk-ant-oat01-"),
        };
        self.access_tokens
            .retain(|_, access| now < access.expires_at.plus_seconds(EXPIRED_TOKEN_MEMORY_SECONDS));
        self.access_tokens.insert(
            token.clone(),
            AccessToken {
                email: email.to_owned(),
                family,
                // Up to a second after the `exp` claim, which is in whole seconds.
                expires_at: now.plus_seconds(lifetime),
                revoked: false,
            },
        );
        Ok((token, lifetime))
    }

    fn sign(&mut self, claims: &serde_json::Value) -> String {
        let mut signature = [0; 32];
        self.rng.fill_bytes(&mut signature);
        jwt::encode(claims, &signature)
    }
}

/// The S256 challenge of a verifier; None if it is not one (RFC 7636 §4.1).
pub(crate) fn challenge(verifier: &str) -> Option<String> {
    let unreserved = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    ((43..=128).contains(&verifier.len()) && verifier.bytes().all(unreserved))
        .then(|| jwt::base64url(&Sha256::digest(verifier)))
}

fn jwt_email(id_token: &str) -> Option<String> {
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
    let payload = URL_SAFE_NO_PAD.decode(id_token.split('.').nth(1)?).ok()?;
    let claims: serde_json::Value = serde_json::from_slice(&payload).ok()?;
    claims["email"].as_str().map(str::to_owned)
}
