//! The rules for the requests of a client key or a pool: the models that others serve, and what is forbidden.

use latchkey::dialect::{Demands, EffortWord, ServiceTier};
use latchkey::snapshot::ModelMaps;
use serde::{Serialize, Serializer};

use super::sql::JsonText;

/// The columns of [`Rules`], in the table of client keys and in that of pools.
macro_rules! rule_columns {
    () => {
        "maps, untranslated = 1 AS untranslated, exact_model = 1 AS exact_model"
    };
}

pub(super) use rule_columns;

/// The rules for the requests of a client key or a pool, in JSON as operators see it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, sqlx::FromRow)]
pub struct Rules {
    /// The models that others serve.
    #[sqlx(try_from = "JsonText<ModelMaps>")]
    pub maps: ModelMaps,
    /// None is translated.
    #[serde(rename = "translation", serialize_with = "opposite")]
    pub untranslated: bool,
    /// Each model serves itself or is not served.
    pub exact_model: bool,
}

/// Changes to the [`Demands`] of a client key: of each `Some(None)` takes it away, and what is not given stays.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DemandChange {
    /// The effort that models are to make.
    pub effort: Option<Option<EffortWord>>,
    /// No more than that.
    pub max_effort: Option<Option<EffortWord>>,
    /// The service tier.
    pub tier: Option<Option<ServiceTier>>,
}

/// Changes to [`Rules`]; what is not given stays.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RuleChange {
    /// Other maps, in place of those before.
    pub maps: Option<ModelMaps>,
    /// None is translated.
    pub untranslated: Option<bool>,
    /// Each model serves itself or is not served.
    pub exact_model: Option<bool>,
}

fn opposite<S: Serializer>(flag: &bool, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_bool(!flag)
}

// === impl DemandChange ===

impl DemandChange {
    /// Returns what is demanded with these changes.
    pub(super) fn of(&self, before: Demands) -> Demands {
        Demands {
            effort: self.effort.unwrap_or(before.effort),
            max_effort: self.max_effort.unwrap_or(before.max_effort),
            tier: self.tier.unwrap_or(before.tier),
        }
    }
}

// === impl RuleChange ===

impl RuleChange {
    /// The columns untranslated and exact_model: 1, 0, or none for what stays.
    pub(super) fn flags(&self) -> [Option<i64>; 2] {
        [self.untranslated, self.exact_model].map(|flag| flag.map(i64::from))
    }
}
