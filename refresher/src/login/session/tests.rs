use std::collections::VecDeque;

use crate::clock::SystemClock;
use crate::oauth::claims::unsigned;
use crate::platform::Profile;
use crate::platform::flow::Flow;

use super::*;

const SITE: &str = "https://chat.example/";

/// A platform whose login is a session, with these lines in `[login.session]`.
fn profile(session: &str) -> Profile {
    let text = format!(
        "id = 'web'\nname = 'Web'\nowner = 'us'\ncredentials = ['session']\n\
         endpoints.chat.generate.path = '/chat'\nupstream.base_url = 'https://chat.example/api'\n\
         [headers]\nset = {{ cookie = '{{credential}}' }}\nallow = []\n\
         [login.session]\nurl = 'https://chat.example/login'\n{session}"
    );
    Profile::from_table(text.parse().unwrap()).unwrap()
}

fn flow(session: &str) -> Session {
    match &profile(session).login.flows[..] {
        [Flow::Session(flow)] => flow.clone(),
        flows => panic!("{flows:?}"),
    }
}

const PLAIN: &str = "credential = 'sid={sid}'\nsecrets.sid.cookie = 'sessionid'\n";

/// The contents of a browser at one look; `None` where it does not answer.
#[derive(Debug, Clone, Default)]
struct View {
    addresses: Vec<&'static str>,
    cookies: Vec<(&'static str, String, Option<i64>)>,
    stored: Vec<(&'static str, String)>,
    answers: Vec<(&'static str, String)>,
}

/// A browser that has each of these views for one look, and the last from then on.
#[derive(Debug, Default)]
struct Fake {
    views: VecDeque<Option<View>>,
    now: Option<View>,
    asked: Vec<Instant>,
}

impl Fake {
    fn of(views: impl IntoIterator<Item = Option<View>>) -> Fake {
        Fake {
            views: views.into_iter().collect(),
            ..Fake::default()
        }
    }

    fn view(&self) -> Result<&View, browser::Error> {
        self.now.as_ref().ok_or(browser::Error::Silent)
    }
}

impl Window for Fake {
    async fn addresses(&mut self) -> Result<Vec<String>, browser::Error> {
        if let Some(view) = self.views.pop_front() {
            self.now = view;
        }
        let view = self.view()?;
        Ok(view.addresses.iter().map(|url| (*url).to_owned()).collect())
    }

    async fn cookies(&mut self, site: &Url) -> Result<Vec<Cookie>, browser::Error> {
        assert!(site.as_str().starts_with(SITE));
        let cookie = |(name, value, expires_at): &(&str, String, Option<i64>)| Cookie {
            name: (*name).to_owned(),
            value: value.as_str().into(),
            expires_at: expires_at.map(UnixMillis),
        };
        Ok(self.view()?.cookies.iter().map(cookie).collect())
    }

    async fn stored(
        &mut self,
        _site: &Url,
        key: &str,
    ) -> Result<Option<SecretString>, browser::Error> {
        let mut stored = self.view()?.stored.iter();
        let found = stored.find(|(name, _)| *name == key);
        Ok(found.map(|(_, value)| value.as_str().into()))
    }

    async fn answer(&mut self, url: &Url) -> Result<Option<SecretString>, browser::Error> {
        self.asked.push(Instant::now());
        let mut answers = self.view()?.answers.iter();
        let found = answers.find(|(path, _)| *path == url.path());
        Ok(found.map(|(_, value)| value.as_str().into()))
    }
}

fn at(address: &'static str) -> View {
    View {
        addresses: vec!["https://elsewhere.example/", address],
        ..View::default()
    }
}

fn with_cookie(mut view: View, name: &'static str, value: &str, expires_at: Option<i64>) -> View {
    view.cookies.push((name, value.to_owned(), expires_at));
    view
}

fn wire(granted: &Granted) -> &str {
    granted.credential.on_the_wire().expose_secret()
}

/// Far enough from now that no bound of ours is nearer, and less than a year.
fn soon(days: i64) -> i64 {
    SystemClock.now().0 + days * 24 * 60 * 60 * 1000
}

#[tokio::test(start_paused = true)]
async fn a_session_is_read_when_the_login_has_happened() {
    let (login, app) = (
        at("https://chat.example/login"),
        at("https://chat.example/app/1"),
    );
    let more = "done = { cookie = 'logged_in', address = 'https://chat.example/app' }\n";
    let flow = flow(&format!("{PLAIN}{more}"));
    let early = with_cookie(login, "sessionid", "of nobody", None);
    let flagged = with_cookie(early.clone(), "logged_in", "1", None);
    let arrived = with_cookie(app.clone(), "sessionid", "of nobody", None);
    let done = with_cookie(app, "sessionid", "abc", Some(soon(30)));
    let done = with_cookie(done, "logged_in", "1", Some(soon(1)));
    // A page that shows a dialog does not answer; it is waited for.
    let views = [Some(early), None, Some(flagged), Some(arrived), Some(done)];
    let mut fake = Fake::of(views);
    let granted = capture(&mut fake, &flow, &SystemClock).await.unwrap();
    assert_eq!(wire(&granted), "sid=abc");
    // The end is that of what goes out, not of the sign.
    assert!(granted.credential_expires_at.unwrap().0 > soon(29));
    assert!(!format!("{granted:?}").contains("abc"));
}

#[tokio::test(start_paused = true)]
async fn a_session_ends_with_the_first_of_its_parts() {
    let flow = flow(
        "credential = '{token}.{sid}'\n\
         secrets = { sid = { cookie = 'sid' }, token = { local_storage = 'user', at = '/a/token' } }\n\
         claims = { account_id = { page = '/me', at = '/id' } }\n",
    );
    let token = unsigned(&json!({"exp": soon(2) / 1000}));
    let token = token.expose_secret();
    let mut view = with_cookie(at("https://chat.example/"), "sid", "{token}", Some(soon(9)));
    view.stored = vec![("user", json!({"a": {"token": token}}).to_string())];
    let waiting = Some(view.clone());
    view.answers = vec![("/me", json!({"id": 77}).to_string())];
    let mut fake = Fake::of([waiting, Some(view)]);
    let granted = capture(&mut fake, &flow, &SystemClock).await.unwrap();
    // A value is put in as it is, whatever it looks like.
    assert_eq!(wire(&granted), format!("{token}.{{token}}"));
    let ends = granted.credential_expires_at.unwrap().0;
    assert!(ends < soon(3) && ends > soon(1), "{ends}");
    assert_eq!(granted.vars["account_id"], "77");
    let between = fake.asked[1] - fake.asked[0];
    assert!(between >= ASK && fake.asked.len() == 2, "{:?}", fake.asked);
}

#[tokio::test(start_paused = true)]
async fn a_window_that_closes_ends_it_and_so_does_time() {
    let flow = flow(PLAIN);
    let open = Some(at("https://chat.example/login"));
    let mut closed = Fake::of([open.clone(), Some(View::default())]);
    let error = capture(&mut closed, &flow, &SystemClock).await.unwrap_err();
    assert!(matches!(error, Error::Closed), "{error}");
    let start = Instant::now();
    let error = capture(&mut Fake::of([open]), &flow, &SystemClock)
        .await
        .unwrap_err();
    assert_eq!(start.elapsed(), LOGIN_LIMIT);
    assert_eq!(
        error.to_string(),
        "nobody finished the login within 10 minutes; the site has no sid"
    );
}

#[tokio::test(start_paused = true)]
async fn what_no_header_carries_is_refused_and_not_shown() {
    let flow = flow(PLAIN);
    for value in [
        "a\u{e9}b".to_owned(),
        "a\r\nx: y".to_owned(),
        "S".repeat(MAX_VALUE_BYTES),
    ] {
        let view = with_cookie(at("https://chat.example/"), "sessionid", &value, None);
        let error = capture(&mut Fake::of([Some(view)]), &flow, &SystemClock)
            .await
            .unwrap_err();
        assert!(
            matches!(&error, Error::Unfit(name) if name == "sid"),
            "{error}"
        );
        assert!(!error.to_string().contains(&value));
    }
    // An end that nobody believes is none of more than a year.
    let view = with_cookie(
        at("https://chat.example/"),
        "sessionid",
        "a",
        Some(i64::MAX),
    );
    let granted = capture(&mut Fake::of([Some(view)]), &flow, &SystemClock)
        .await
        .unwrap();
    assert!(granted.credential_expires_at.unwrap().0 < soon(366));
}

#[test]
fn an_address_is_one_of_the_site_that_begins_so() {
    let wanted = Url::parse("https://chat.example/app").unwrap();
    for (address, is_there) in [
        ("https://chat.example/app", true),
        ("https://chat.example/app/7?x", true),
        ("https://chat.example/login?next=/app", false),
        ("https://chat.example.evil/app", false),
        ("http://chat.example/app", false),
        ("https://evil/?https://chat.example/app", false),
        ("about:blank", false),
    ] {
        assert_eq!(begins(address, &wanted), is_there, "{address}");
    }
}
