//! The lessons of answers: verdicts, quotas, probes.

use super::{Settings, Worker, knowledge};
use crate::{
    attempt::{blames_request, is_posted, is_refreshable, is_worth_another, may_blame},
    header::HeaderText,
    health::{Change, MAX_ENTRIES, Striker, Witness, quota::KnownQuota},
    host::Host,
    id::Id,
    label::ModelName,
    request::carried::{Carried, TryId},
    snapshot::{Account, Kind},
    sync::{board, quota, report::Report},
    verdict::{Quota, Reason, Scope, Verdict},
};

/// The milliseconds for which an account is left alone for a model that it may not use: rights change, and
/// one request finds that out.
const NOT_SERVED_MS: u64 = 3_600_000;

/// A request that is the probe of a half-open account.
#[derive(Debug)]
pub(super) struct Probe {
    context: u32,
    account: Id,
    /// The client key that tries it.
    key: Striker,
    /// The time at which it was taken, in Unix milliseconds.
    at: u64,
}

/// Returns the model that a request asks for, as text.
fn model(carried: &Carried) -> Option<&str> {
    carried.model.as_ref().map(HeaderText::as_str)
}

impl<H: Host> Worker<H> {
    /// Takes the probe of a half-open account for a request.
    pub(super) fn probe(&mut self, account: &Account, carried: &Carried) {
        let now = self.host.now();
        board::update(&mut self.host, |board| {
            board.probe(account, Striker::of(&carried.key), model(carried), now);
            true
        });
        if self.probes.len() < MAX_ENTRIES {
            self.probes.push(Probe {
                context: carried.try_id.context,
                account: account.id.clone(),
                key: Striker::of(&carried.key),
                at: now,
            });
        }
    }

    /// Returns the probes of a context to the board, so that another request may be one.
    pub(super) fn give_back_probes(&mut self, context: u32) {
        while let Some(index) = self.probes.iter().position(|one| one.context == context) {
            let probe = self.probes.swap_remove(index);
            board::update(&mut self.host, |board| {
                board.give_back(&probe.account, probe.key, probe.at)
            });
        }
    }

    /// Returns true if the headers of a good answer of this account are worth a look.
    pub fn wants_quota(&mut self, account: &Account) -> bool {
        self.looks.is_due(&account.id, self.host.recently())
    }

    /// Takes what an answer says of an account's windows.
    pub fn quota(&mut self, account: &Account, quota: Quota) {
        let known = KnownQuota::new(quota.windows, self.host.recently());
        let held = self.follower.board().quotas().of(&account.id);
        // What this VM has read may be old, but not so that it takes every answer for news.
        if held.is_none_or(|held| held.is_news(&known)) && !known.windows.is_empty() {
            quota::note(&mut self.host, &account.id, &known);
        }
    }

    /// Takes a verdict about an account that an answer of this status has led to. Returns what its
    /// request carries into the next try, if it `can_run` again and another account could do better.
    /// `elsewhere`: the account does not have what the request goes on from, and another one may.
    pub fn judged(
        &mut self,
        account: &Account,
        carried: &Carried,
        status: u16,
        verdict: &Verdict,
        elsewhere: bool,
        can_run: bool,
    ) -> Option<Carried> {
        let now = self.host.recently();
        let verdict = match carried.refused.contains(&status) {
            true => &Verdict::CallersFault,
            false => verdict,
        };
        let sent = self.sent.get_mut(carried.try_id);
        let broke_off = sent.as_ref().is_some_and(|sent| sent.broke_off);
        if let Some(record) = sent.and_then(|sent| sent.record.as_mut()) {
            record.verdict = Some(Reason::known(verdict.word()));
        }
        // Where a platform hangs up in the middle of a request, its caller may have been too slow
        // for it: whoever dawdles must not have accounts taken out.
        let blames = !broke_off && self.learn(account, carried, verdict);
        if *verdict == Verdict::Fine {
            self.blame_the_unable(carried);
        }
        let elsewhere = elsewhere && !carried.at_home;
        if !can_run || !(elsewhere || is_worth_another(verdict)) {
            return None;
        }
        let Settings {
            max_attempts,
            failover,
            refresh_wait,
            throttle_wait,
            ..
        } = self.settings;
        // The account is out now, so the gate has the request wait for it, or finds another one.
        if blames && is_throttle(verdict, now.saturating_add(throttle_wait)) {
            let has_place = self.waiting.has_place(&carried.key);
            let next = carried.after_throttle(now, failover);
            if let Some(next) = next.filter(|_| has_place) {
                return Some(next);
            }
        }
        let mut next = carried.after_failure(account.generation, now, max_attempts, failover)?;
        next.blames |= blames;
        if verdict.is_not_served() {
            next.unable.get_or_insert_with(|| account.id.clone());
        }
        next.moved |= elsewhere;
        if blames_request(status) && !elsewhere {
            next.refused.push(status);
        }
        // The platform's own answer is better than ours where nobody else can serve.
        self.follower.view(&self.host);
        let knowledge = knowledge(&self.follower, &self.limiter, now);
        let expired = *verdict == Verdict::CredentialExpired;
        let worth_waiting = expired && is_refreshable(account) && refresh_wait > 0;
        if !worth_waiting && !self.gate.can_serve(&next, &knowledge) {
            return None;
        }
        Some(next)
    }

    /// Returns what a request carries into the next try that `account` has answered as another model than was asked for, if
    /// it `can_run` again and another account could do better. It is held against nobody: the account does serve, and what a
    /// platform calls its models the caller knows as little as we do.
    pub fn served_another(
        &mut self,
        account: &Account,
        carried: &Carried,
        can_run: bool,
    ) -> Option<Carried> {
        let now = self.host.recently();
        let Settings {
            max_attempts,
            failover,
            ..
        } = self.settings;
        if !can_run || carried.at_home {
            return None;
        }
        let mut next = carried.after_failure(account.generation, now, max_attempts, failover)?;
        // Its session goes straight to the account that does serve it, from then on.
        next.moved = true;
        self.follower.view(&self.host);
        let knowledge = knowledge(&self.follower, &self.limiter, now);
        self.gate.can_serve(&next, &knowledge).then_some(next)
    }

    /// Returns what a request carries that is sent once more to `account`, if it `can_run` again and nobody else could
    /// serve it: one that the account is known not to have had whole; and one that `makes_nothing` and whose connection
    /// broke as it came, so that the account may have had it. One such is held against nobody.
    pub fn sends_again(
        &mut self,
        account: &Account,
        carried: &Carried,
        makes_nothing: bool,
        can_run: bool,
    ) -> Option<Carried> {
        let now = self.host.recently();
        let is_stale = makes_nothing && self.sent.was_stale(carried.try_id, now);
        let sent = self.sent.get_mut(carried.try_id);
        let is_known = sent.is_some_and(|sent| sent.was_not_sent || sent.broke_off);
        if !(is_known || is_stale) || !can_run {
            return None;
        }
        let next = carried.after_no_delivery(now, self.settings.failover)?;
        let elsewhere = Carried {
            tried: [
                carried.tried.as_slice(),
                &[(account.id.clone(), account.generation)],
            ]
            .concat(),
            ..next.clone()
        };
        self.follower.view(&self.host);
        let knowledge = knowledge(&self.follower, &self.limiter, now);
        (!self.gate.can_serve(&elsewhere, &knowledge)).then_some(next)
    }

    /// Leaves the account alone that may not do what a request asked and another one has just done: for
    /// its model, if that is known.
    fn blame_the_unable(&mut self, carried: &Carried) {
        let Some(unable) = carried.unable.as_ref().filter(|_| !carried.blames) else {
            return;
        };
        let view = self.follower.current();
        let account = view.and_then(|view| view.account(unable.as_str()).cloned());
        let model = model(carried).and_then(|model| ModelName::try_from(model).ok());
        if let (Some(account), Some(model)) = (account, model) {
            let verdict = Verdict::CoolingDown {
                scope: Scope::Model(model),
                until: self.host.recently().saturating_add(NOT_SERVED_MS),
                guessed: true,
                reason: Reason::not_served(),
            };
            self.note(&account, carried, &verdict);
        }
    }

    /// Takes a verdict about an account, for other requests. Returns true if it speaks against the
    /// account.
    pub fn learn(&mut self, account: &Account, carried: &Carried, verdict: &Verdict) -> bool {
        if *verdict != Verdict::CallersFault {
            let key = Striker::of(&carried.key);
            self.probes
                .retain(|probe| probe.account != account.id || probe.key != key);
        }
        let is_posted = is_posted(verdict, account, carried, self.follower.board());
        if is_posted {
            self.note(account, carried, verdict);
        }
        // The refresher knows for itself which accounts it can refresh, and which of them it has to ask about.
        if *verdict == Verdict::CredentialExpired && may_blame(account, carried) {
            self.reports.push(Report::Unauthorized {
                account: account.id.clone(),
                generation: account.generation,
            });
        }
        is_posted && *verdict != Verdict::Fine
    }

    /// Takes the good end of a good answer, which wipes out its key's strikes.
    pub fn ended_well(&mut self, account: &Account, carried: &Carried) {
        if let Some(session) = carried.session.filter(|_| carried.moved) {
            self.gate.prefer(&carried.key, session, &account.id);
        }
        let board = self.follower.board();
        if board.has_guess(account, Striker::of(&carried.key), model(carried)) {
            self.note(account, carried, &Verdict::Fine);
        }
    }

    /// Notes that the answer of a try became a redirect.
    pub fn redirected(&mut self, try_id: TryId) {
        self.totals.failovers = self.totals.failovers.saturating_add(1);
        if let Some(sent) = self.sent.get_mut(try_id) {
            sent.redirected = true;
        }
    }

    /// Writes a verdict to the board, and reports what it changes for requests.
    fn note(&mut self, account: &Account, carried: &Carried, verdict: &Verdict) {
        let (now, mut change) = (self.host.recently(), Change::Nothing);
        let keys = self.follower.current().map(|view| view.count(Kind::Key));
        let witness = Witness {
            key: Striker::of(&carried.key),
            alone: keys == Some(1),
        };
        board::update(&mut self.host, |board| {
            change = board.learn(account, witness, model(carried), verdict, now);
            change != Change::Nothing
        });
        let report = match &change {
            Change::Out(entry) => Report::of(entry),
            Change::Suspected => match verdict {
                Verdict::Dead { reason } => Some(Report::suspicion(account, reason, now)),
                _ => None,
            },
            Change::Recovered => Some(Report::Recovered {
                account: account.id.clone(),
                model: model(carried).and_then(|model| ModelName::try_from(model).ok()),
                at: now,
            }),
            Change::Nothing | Change::Noted => None,
        };
        if matches!(change, Change::Out(_) | Change::Suspected) {
            log_blame(account, carried, verdict, &change);
        }
        if let Some(report) = report {
            self.reports.push(report.met_by(carried));
        }
    }
}

/// Returns true if the account is back by `soon`, as its platform says.
fn is_throttle(verdict: &Verdict, soon: u64) -> bool {
    let until = match verdict {
        Verdict::CoolingDown {
            until,
            guessed: false,
            ..
        } => Some(*until),
        _ => None,
    };
    until.is_some_and(|until| until <= soon)
}

/// Says which request of which client key speaks against an account, and for whom that holds.
fn log_blame(account: &Account, carried: &Carried, verdict: &Verdict, change: &Change) {
    let request = carried.id.as_ref().map_or("-", Id::as_str);
    let holds = match change {
        Change::Suspected => "its key alone",
        _ => "every key",
    };
    log::info!(
        "account {} is out for {holds}: {} by request {request} of key {}",
        account.id,
        verdict.word(),
        carried.key,
    );
}
