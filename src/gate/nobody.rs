//! The refusal of a request for which no account of its pool is picked, though none is out: what is asked for is nowhere,
//! or with an account that is not in use now.

use super::refusal::{Refusal, Sought, Wished};
use crate::{
    header::HeaderText,
    id::Id,
    snapshot::{Door, Member, View},
};

/// The refusal for a pool in which nobody serves a path. An account that is not in use now is not in
/// the snapshot, and could have served it. `untranslated`: by those alone who speak the dialect of the path.
pub(super) fn nobody(view: &View, pool: &Id, untranslated: bool) -> Refusal {
    let members = view.pool(pool).map_or(&[][..], |pool| &pool.members);
    let no_account = || Refusal::NoAccount {
        pool: pool.clone(),
        sought: Sought::Path,
    };
    if has_idle(view, pool) {
        return no_account();
    }
    let platforms = || {
        let accounts = members.iter();
        let accounts = accounts.filter_map(|member| view.account(member.account.as_str()));
        accounts.filter_map(|account| view.platform(&account.platform))
    };
    let serves = |door: &&Door| {
        let mut found = platforms().filter_map(|one| one.endpoint(one.endpoint_for(door)?));
        found.any(|endpoint| !untranslated || endpoint.answers(door))
    };
    let doors = view.doors().map_or(&[][..], |doors| &doors.doors);
    let mut served: Vec<String> = doors
        .iter()
        .filter(|door| door.own().is_none())
        .filter(serves)
        .map(|door| format!("{} {}", door.method, String::from(door.path.clone())))
        .collect();
    served.dedup();
    if served.is_empty() {
        return no_account();
    }
    Refusal::NeverServed {
        pool: pool.clone(),
        served,
    }
}

/// Returns true if an account of the pool is not in use now: it is not in the snapshot, or its platform is not.
fn has_idle(view: &View, pool: &Id) -> bool {
    let platform = |member: &Member| {
        let account = view.account(member.account.as_str())?;
        view.platform(&account.platform)
    };
    let mut members = view.pool(pool).map_or(&[][..], |pool| &pool.members).iter();
    members.any(|member| platform(member).is_none())
}

/// The refusal of a request for a model that no account in use serves. Nobody knows here what an account has that is not in
/// use: it may have what a platform says that there is.
pub(super) fn no_model(
    view: &View,
    pool: &Id,
    model: Option<&HeaderText>,
    of: Option<Wished>,
) -> Refusal {
    let pool = || pool.clone();
    match model {
        None => Refusal::NoModel(Some(pool())),
        Some(model) if of.is_none() && is_known(view, model) && has_idle(view, &pool()) => {
            Refusal::NoAccount {
                pool: pool(),
                sought: Sought::Model(model.clone()),
            }
        }
        Some(model) => Refusal::ModelNotServed {
            model: model.clone(),
            pool: pool(),
            of,
        },
    }
}

/// Returns true if a platform of the gateway lists the model.
fn is_known(view: &View, model: &HeaderText) -> bool {
    let mut platforms = view.platforms();
    platforms.any(|platform| platform.models.contains(model))
}

/// The refusal of a request whose caller may choose its account, and `wished` for one that no account in use is.
pub(super) fn not_there(view: &View, pool: &Id, wished: Option<Wished>) -> Refusal {
    let Some(wished) = wished else {
        return Refusal::ChoiceNotAllowed;
    };
    let pool = pool.clone();
    match has_idle(view, &pool) {
        true => Refusal::NoAccount {
            pool,
            sought: Sought::Wished(wished),
        },
        false => Refusal::NotInPool { pool, wished },
    }
}
