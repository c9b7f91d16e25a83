//! The shape of the JWTs that Codex gets, with its claims.
//!
//! The signature is random bytes: clients do not verify it, and the platform knows the tokens it
//! issued by themselves.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use super::{CLIENT_ID, User};
use crate::clock::UnixMillis;

/// Base64url without padding (RFC 7515 §2).
pub fn base64url(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Claims of an access token that expires `lifetime_seconds` after `now`.
pub fn access_claims(user: &User, now: UnixMillis, lifetime_seconds: u64, jti: &str) -> Value {
    let mut claims = common_claims(user, now, lifetime_seconds, jti);
    claims["aud"] = json!(["https://api.openai.com/v1"]);
    claims["client_id"] = json!(CLIENT_ID);
    claims["scp"] = json!(["openid", "profile", "email", "offline_access"]);
    claims["https://api.openai.com/profile"] = json!({"email": user.email, "email_verified": true});
    claims
}

/// Claims of an ID token.
pub fn id_claims(user: &User, now: UnixMillis, lifetime_seconds: u64, jti: &str) -> Value {
    let mut claims = common_claims(user, now, lifetime_seconds, jti);
    claims["aud"] = json!([CLIENT_ID]);
    claims
}

/// The compact serialisation of `claims` with that signature.
pub fn encode(claims: &Value, signature: &[u8]) -> String {
    let header = json!({"alg": "RS256", "typ": "JWT", "kid": "sim"});
    format!(
        "{}.{}.{}",
        base64url(header.to_string().as_bytes()),
        base64url(claims.to_string().as_bytes()),
        base64url(signature)
    )
}

fn common_claims(user: &User, now: UnixMillis, lifetime_seconds: u64, jti: &str) -> Value {
    let user_id = format!("user-{}", user.email);
    json!({
        "iss": "https://auth.openai.com",
        "sub": user_id,
        "iat": now.seconds(),
        "exp": now.seconds() + lifetime_seconds,
        "jti": jti,
        "email": user.email,
        "email_verified": true,
        "https://api.openai.com/auth": {
            "chatgpt_account_id": user.account_id,
            "chatgpt_account_user_id": format!("{user_id}__{}", user.account_id),
            "chatgpt_plan_type": user.plan,
            "chatgpt_user_id": user_id,
            "user_id": user_id,
        },
    })
}
