//! The upstream filter's context: carries out what the attempt says.

use std::rc::Rc;

use proxy_wasm::{
    hostcalls,
    traits::{Context, HttpContext},
    types::{Action, MapType},
};

use super::{envoy, vm};
use crate::{
    attempt::{self, Judgement},
    dialect::{Dialect, Refusal},
    header::HeaderMap,
    snapshot::Account,
};

/// One try of one request.
#[derive(Debug, Default)]
pub(super) struct AttemptContext {
    account: Option<Rc<Account>>,
    dialect: Option<Dialect>,
}

impl Context for AttemptContext {}

impl HttpContext for AttemptContext {
    fn on_http_request_headers(&mut self, _headers: usize, _end_of_stream: bool) -> Action {
        let request = envoy::request_headers();
        match self.send_on(&request) {
            Ok(()) => Action::Continue,
            Err(refusal) => {
                envoy::send(&refusal.reply(self.dialect()));
                Action::Pause
            }
        }
    }

    fn on_http_response_headers(&mut self, _headers: usize, _end_of_stream: bool) -> Action {
        let status = hostcalls::get_map_value_bytes(MapType::HttpResponseHeaders, ":status");
        let (Ok(Some(status)), Some(account)) = (status, &self.account) else {
            return Action::Continue;
        };
        match attempt::judge(&status, account) {
            Judgement::Pass => Action::Continue,
            Judgement::Report(report) => {
                vm::with(|vm| vm.report(report));
                Action::Continue
            }
            Judgement::Replace(refusal) => {
                envoy::send(&refusal.reply(self.dialect()));
                Action::Pause
            }
        }
    }
}

// === impl AttemptContext ===

impl AttemptContext {
    /// Puts the account's headers on the request. The header block is written whole, in one
    /// hostcall: what is not in it does not go out.
    fn send_on(&mut self, request: &HeaderMap) -> Result<(), Refusal> {
        let id = envoy::account_property().ok_or(Refusal::NoCredential)?;
        let id = std::str::from_utf8(&id).map_err(|_| Refusal::NoCredential)?;
        let found = vm::with(|vm| {
            let view = vm.view()?;
            let account = view.account(id)?;
            let platform = view.platform(&account.platform)?;
            Some((Rc::clone(account), Rc::clone(platform)))
        });
        let (account, platform) = found.flatten().ok_or(Refusal::NoCredential)?;
        let outgoing = attempt::headers(request, &platform, &account)?;
        self.dialect = Some(outgoing.dialect);
        let map = outgoing
            .headers
            .iter()
            .map(|(name, value)| (*name, value.as_ref()));
        hostcalls::set_map_bytes(MapType::HttpRequestHeaders, map.collect())
            .map_err(|_| Refusal::NoCredential)?;
        self.account = Some(account);
        Ok(())
    }

    fn dialect(&self) -> Dialect {
        self.dialect.unwrap_or(Dialect::Chat)
    }
}
