//! A refresher that serves one snapshot, which changes only when it is told to.

use std::{cell::RefCell, convert::Infallible, path::Path, rc::Rc, time::Duration};

use anyhow::{Context, Result};
use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode, body::Incoming, server::conn::http1, service::service_fn,
};
use hyper_util::rt::TokioIo;
use latchkey::snapshot::page::{Epoch, MAX_PAGE_BYTES, PageHeader};
use tokio::{net::UnixListener, sync::Notify, task, time};

use crate::fleet::Fleet;

const EPOCH: [u8; 16] = [7; 16];

/// The records that are served, the latest last.
#[derive(Debug)]
pub struct Records {
    lines: RefCell<Vec<String>>,
    news: Notify,
}

impl Records {
    /// Publishes another record, or the next state of one.
    pub fn push(&self, line: String) {
        self.lines.borrow_mut().push(line);
        self.news.notify_waiters();
    }
}

/// Serves the snapshot of `fleet` on the Unix socket `path` for as long as the program runs.
/// Must be called within a `LocalSet`.
///
/// # Errors
/// When the socket cannot be made.
pub fn serve(path: &Path, fleet: Fleet) -> Result<Rc<Records>> {
    let records = Rc::new(Records {
        lines: RefCell::new(fleet.snapshot()?),
        news: Notify::new(),
    });
    let listener = UnixListener::bind(path).with_context(|| path.display().to_string())?;
    let served = Rc::clone(&records);
    task::spawn_local(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let records = Rc::clone(&served);
            let service = service_fn(move |request| {
                let records = Rc::clone(&records);
                async move { Ok::<_, Infallible>(answer(&request, &records).await) }
            });
            let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            task::spawn_local(connection);
        }
    });
    Ok(records)
}

async fn answer(request: &Request<Incoming>, records: &Records) -> Response<Full<Bytes>> {
    let mut response = Response::default();
    if request.method() != Method::GET {
        *response.status_mut() = StatusCode::NO_CONTENT;
        return response;
    }
    let query = request.uri().query().unwrap_or_default();
    let parameter = |name: &str| {
        query.split('&').find_map(|pair| {
            let (key, value) = pair.split_once('=')?;
            (key == name).then_some(value)
        })
    };
    let number = |name| parameter(name).and_then(|value| value.parse::<u64>().ok());
    let since = number("since").unwrap_or_default();
    let news = records.news.notified();
    if since >= records.lines.borrow().len() as u64 {
        let wait = Duration::from_secs(number("wait").unwrap_or_default());
        // An empty page is the answer to a poll without news.
        let _ = time::timeout(wait, news).await;
    }
    *response.body_mut() = Full::from(page(&records.lines.borrow(), since));
    response
}

/// The page after revision `since`, where record `n` changed at revision `n + 1`.
fn page(lines: &[String], since: u64) -> Vec<u8> {
    let start = usize::try_from(since).unwrap_or_default().min(lines.len());
    let mut bytes = 0;
    let records: Vec<&str> = lines[start..]
        .iter()
        .map(String::as_str)
        .take_while(|line| {
            bytes += line.len() + 1;
            bytes < MAX_PAGE_BYTES
        })
        .collect();
    let end = start + records.len();
    PageHeader::encode(
        Epoch::from_bytes(EPOCH),
        since == 0,
        (since, end as u64),
        end < lines.len(),
        records,
    )
}

#[cfg(test)]
mod tests {
    use latchkey::snapshot::page::Page;

    use super::*;

    #[test]
    fn the_pages_hold_every_record_once() {
        let with = crate::fleet::With::Nothing;
        let lines = Fleet { size: 2_000, with }.snapshot().unwrap();
        let (mut since, mut seen, mut more) = (0, Vec::new(), true);
        while more {
            let bytes = page(&lines, since);
            let page = Page::parse(&bytes).unwrap();
            assert!(page.header.to > since);
            seen.extend(
                page.lines()
                    .map(|line| String::from_utf8(line.to_vec()).unwrap()),
            );
            (since, more) = (page.header.to, page.header.more);
        }
        assert!(seen == lines);
    }
}
