//! The loopback listener that a browser comes back to (RFC 8252 §7.3): 127.0.0.1 and one path.
//!
//! Whoever does not know the state of a login that waits is refused and the login goes on waiting, so that another page
//! or program on this machine can neither finish it nor spoil it. A state is taken once, whatever comes of it.
//!
//! `refresher login` waits for one login, ten minutes long ([`Listener::receive`]); `serve` for those that are pending
//! ([`Listener::open`]).

use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::redirect::Refused;
use super::{Login, Step};
use crate::listen;
use crate::os_error::in_words;

/// The time that a person has to log in.
pub const LOGIN_LIMIT: Duration = Duration::from_secs(10 * 60);
/// The time that the last page has to reach the browser.
const CLOSE_LIMIT: Duration = Duration::from_secs(1);

/// The reason why no redirect came.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// All the ports that the platform accepts are in use.
    #[error("cannot listen on 127.0.0.1 port {ports}: {}", in_words(source))]
    Ports {
        /// The ports that were tried.
        ports: String,
        /// The operating system's own words about the last.
        source: std::io::Error,
    },
    /// Nobody came.
    #[error("nobody finished the login within {} minutes", LOGIN_LIMIT.as_secs() / 60)]
    TimedOut,
    /// The listener broke.
    #[error("the listener for the browser stopped: {0}")]
    Stopped(String),
}

/// A bound listener.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    port: u16,
}

/// The text of the last page.
#[derive(Debug, Clone)]
pub enum Ending {
    /// The login is complete.
    Success,
    /// The login is not complete, and why.
    Failure(String),
}

impl Listener {
    /// Listens on the first of `ports` that is free; 0 lets the operating system choose.
    ///
    /// # Errors
    /// If none is free.
    pub async fn bind(ports: &[u16]) -> Result<Listener, Error> {
        let mut last = std::io::Error::other("the profile names no port");
        for port in ports {
            match TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).await {
                Ok(socket) => match socket.local_addr() {
                    Ok(address) => {
                        return Ok(Listener {
                            socket,
                            port: address.port(),
                        });
                    }
                    Err(error) => last = error,
                },
                Err(error) => last = error,
            }
        }
        let ports = ports
            .iter()
            .map(u16::to_string)
            .collect::<Vec<_>>()
            .join(" or ");
        Err(Error::Ports {
            ports,
            source: last,
        })
    }

    /// The port that it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Waits for the redirect to `path` that `login` takes, lets `finish` complete it from the step that this gives, shows
    /// the browser what came of it, and closes.
    ///
    /// # Errors
    /// If nobody comes within [`LOGIN_LIMIT`].
    pub async fn receive<T, E, F>(
        self,
        path: &str,
        login: Login,
        finish: impl FnOnce(Login, Step) -> F,
    ) -> Result<Result<T, E>, Error>
    where
        E: std::fmt::Display,
        F: Future<Output = Result<T, E>>,
    {
        let (arrived, arrival) = oneshot::channel();
        let waiting = Mutex::new(Some((login, arrived)));
        let open = self.open(path, move |query| {
            let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
            let (login, _) = waiting.as_mut().ok_or(Refused::Used)?;
            let step = login.input(query)?;
            let (login, arrived) = waiting.take().ok_or(Refused::Used)?;
            let (ending, ended) = oneshot::channel();
            let _ = arrived.send(Arrival {
                login,
                step,
                ending,
            });
            Ok(ended)
        });
        let arrival = timeout(LOGIN_LIMIT, arrival).await;
        let outcome = match arrival {
            Ok(Ok(Arrival {
                login,
                step,
                ending,
            })) => {
                let finished = finish(login, step).await;
                // The browser may have gone away; the login counts all the same.
                let _ = ending.send(Ending::of(&finished));
                Ok(finished)
            }
            Ok(Err(_)) => Err(Error::Stopped("it dropped the login".into())),
            Err(_) => Err(Error::TimedOut),
        };
        open.close().await;
        outcome
    }

    /// Answers browsers until closed or dropped: `admit` is asked about the query of each redirect to `path`.
    pub fn open(
        self,
        path: &str,
        admit: impl Fn(&str) -> Result<oneshot::Receiver<Ending>, NotAdmitted> + Send + Sync + 'static,
    ) -> Open {
        let port = self.port;
        let desk = Arc::new(Desk {
            port,
            path: path.to_owned(),
            admit: Box::new(admit),
        });
        let router = Router::new().fallback(receive).with_state(desk);
        let close = CancellationToken::new();
        let server = listen::serve(self.socket, router, listen::LOGINS, close.clone());
        Open {
            port,
            close: close.drop_guard(),
            server: tokio::spawn(server),
        }
    }
}

/// A listener that answers browsers. Dropped, it takes no more of them; what it said already still gets out.
#[derive(Debug)]
pub struct Open {
    port: u16,
    close: DropGuard,
    server: JoinHandle<()>,
}

impl Open {
    /// The port that it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Lets the last page out, at most for [`CLOSE_LIMIT`]. The port is free then.
    pub async fn close(self) {
        drop(self.close);
        let abort = self.server.abort_handle();
        if timeout(CLOSE_LIMIT, self.server).await.is_err() {
            abort.abort();
        }
    }
}

/// The reason why a redirect was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotAdmitted {
    /// An answer that belongs to no login that waits here.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// Nobody would be left to complete it.
    #[error(
        "The program that waits for this login is stopping. It makes a new URL when it runs again."
    )]
    Stopping,
}

impl NotAdmitted {
    fn status(self) -> StatusCode {
        match self {
            NotAdmitted::Refused(Refused::Used) => StatusCode::GONE,
            NotAdmitted::Refused(_) => StatusCode::BAD_REQUEST,
            NotAdmitted::Stopping => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

impl Ending {
    /// Words the last page about `finished`.
    pub fn of<T, E: std::fmt::Display>(finished: &Result<T, E>) -> Ending {
        match finished {
            Ok(_) => Ending::Success,
            Err(error) => Ending::Failure(error.to_string()),
        }
    }
}

/// The redirect, and where to send what came of it.
struct Arrival {
    login: Login,
    step: Step,
    ending: oneshot::Sender<Ending>,
}

/// Takes the query of a redirect; what is to be told to the browser will come through the receiver.
type Admit = dyn Fn(&str) -> Result<oneshot::Receiver<Ending>, NotAdmitted> + Send + Sync;

struct Desk {
    port: u16,
    path: String,
    admit: Box<Admit>,
}

async fn receive(State(desk): State<Arc<Desk>>, request: Request) -> Response {
    match desk.admit(&request) {
        Ok(ending) => match ending.await {
            Ok(Ending::Success) => page(
                StatusCode::OK,
                "You are logged in",
                "You can close this page.",
            ),
            Ok(Ending::Failure(problem)) => {
                page(StatusCode::BAD_GATEWAY, "The login failed", &problem)
            }
            Err(_) => page(
                StatusCode::BAD_GATEWAY,
                "The login failed",
                "The program that asked for it has ended.",
            ),
        },
        Err((status, problem)) => {
            page(status, "This is not the login that is waited for", &problem)
        }
    }
}

impl Desk {
    /// Takes the redirect if it is this login's; what is to be told to the browser will come through the receiver.
    fn admit(&self, request: &Request) -> Result<oneshot::Receiver<Ending>, (StatusCode, String)> {
        // A page elsewhere that rebinds its own name to 127.0.0.1 has that name in Host.
        let host = request
            .headers()
            .get(header::HOST)
            .map(HeaderValue::as_bytes)
            .unwrap_or_default();
        if !["127.0.0.1", "localhost"]
            .iter()
            .any(|name| format!("{name}:{}", self.port).as_bytes() == host)
        {
            return Err((
                StatusCode::FORBIDDEN,
                "The address is not this machine's own.".into(),
            ));
        }
        if request.uri().path() != self.path {
            return Err((StatusCode::NOT_FOUND, "There is nothing here.".into()));
        }
        if request.method() != Method::GET {
            return Err((
                StatusCode::METHOD_NOT_ALLOWED,
                "A browser comes here with GET.".into(),
            ));
        }
        let query = request.uri().query().unwrap_or_default();
        (self.admit)(query).map_err(|refused| (refused.status(), refused.to_string()))
    }
}

/// A page without script, links or anything of the request but words that were made fit to show.
fn page(status: StatusCode, title: &str, text: &str) -> Response {
    let (title, text) = (escape(title), escape(text));
    let body = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Latchkey: {title}</title>\
         <style>body{{font:1.1rem/1.5 system-ui,sans-serif;max-width:34rem;margin:20vh auto;padding:0 1rem}}</style>\
         <h1>{title}</h1><p>{text}</p></html>"
    );
    let headers = [
        (header::CACHE_CONTROL, "no-store"),
        (header::CONNECTION, "close"),
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
        ),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (status, headers, Html(body)).into_response()
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests;
