//! The platform's web site: a login page whose cookie is an access token, a page that keeps something of its user in local
//! storage, and an answer about who is logged in.
//!
//! Who has not logged in gets a cookie of the same name, as real sites give: that one is there tells nothing.

use http::{HeaderMap, Method, Request, StatusCode, header};
use hyper::body::Bytes;
use serde_json::json;
use url::form_urlencoded;

use crate::{
    answer::Answer,
    clock::UnixMillis,
    oauth::{Access, OAuth, User},
    token_endpoint::{escaped, html},
};

/// The cookie whose value is the session.
const COOKIE: &str = "sim_session";

/// The site's answer to a request for one of its pages.
pub fn answer(
    oauth: &mut OAuth,
    method: &Method,
    request: &Request<Bytes>,
    now: UnixMillis,
) -> Answer {
    let user = user(oauth, request.headers(), now);
    let page = |body: &str| Answer::whole(StatusCode::OK, "text/html; charset=utf-8", html(body));
    let answer = match (method, request.uri().path(), user) {
        (&Method::GET, "/web/login", _) => {
            let anonymous = format!("{COOKIE}=anonymous; Path=/");
            let query = request.uri().query().unwrap_or_default();
            page(&login_page(oauth, query)).with("set-cookie", anonymous)
        }
        (&Method::POST, "/web/login", _) => log_in(oauth, request.body(), now),
        (&Method::GET, "/web/chat", Some(user)) => {
            let kept = json!({"user": {"id": user.account_id}}).to_string();
            page(&format!(
                "<p>Chat</p><script>localStorage.setItem('kept', {});</script>",
                json!(kept)
            ))
        }
        (&Method::GET, "/web/session", Some(user)) => {
            let body = json!({"user": {"email": user.email}});
            Answer::json(StatusCode::OK, body.to_string())
        }
        (&Method::GET, _, _) => Answer::json(StatusCode::UNAUTHORIZED, "{}"),
        _ => Answer::json(StatusCode::METHOD_NOT_ALLOWED, "{}"),
    };
    answer.with("cache-control", "no-store")
}

fn user(oauth: &OAuth, headers: &HeaderMap, now: UnixMillis) -> Option<User> {
    let cookies = headers.get_all(header::COOKIE).iter();
    let mut cookies = cookies
        .filter_map(|value| value.to_str().ok())
        .flat_map(|line| line.split("; "));
    let session = cookies.find_map(|pair| pair.strip_prefix(COOKIE)?.strip_prefix('='))?;
    match oauth.access(session, now) {
        Access::Valid(user) => Some(user),
        _ => None,
    }
}

/// A button for each user. The page presses that of `sim_user` by itself a moment later, as a person would.
fn login_page(oauth: &OAuth, query: &str) -> String {
    let mut pairs = form_urlencoded::parse(query.as_bytes());
    let person = pairs.find(|(name, _)| name == "sim_user");
    let person = person.map_or_else(String::new, |(_, email)| email.into_owned());
    let button = |email: &str| {
        let pressed = if email == person {
            " id=\"pressed\""
        } else {
            ""
        };
        let email = escaped(email);
        format!("<li><button{pressed} name=\"email\" value=\"{email}\">{email}</button></li>")
    };
    let buttons: String = oauth.emails().map(button).collect();
    format!(
        "<p>Log in as:</p><form method=\"post\"><ul>{buttons}</ul></form>\
         <script>setTimeout(() => document.getElementById('pressed')?.click(), 300);</script>"
    )
}

fn log_in(oauth: &mut OAuth, form: &[u8], now: UnixMillis) -> Answer {
    let mut pairs = form_urlencoded::parse(form);
    let email = pairs.find(|(name, _)| name == "email");
    let email = email.map_or_else(String::new, |(_, email)| email.into_owned());
    match oauth.log_in(&email, now) {
        Ok(tokens) => Answer::redirect("/web/chat").with(
            "set-cookie",
            format!(
                "{COOKIE}={}; Path=/; HttpOnly; Secure; SameSite=Lax; Max-Age={}",
                tokens.access_token, tokens.expires_in
            ),
        ),
        Err(_) => Answer::whole(StatusCode::BAD_REQUEST, "text/plain", "no such user"),
    }
}
