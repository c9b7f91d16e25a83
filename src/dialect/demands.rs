//! The operator's word on how much a model is to think and in which service tier, whatever the caller says.
//!
//! A request that is not translated says it in the members of its dialect ([`Steering`]): those alone change, all else
//! stays. In one that is translated it is the neutral form that changes.

mod effort_edits;

use serde::{Deserialize, Serialize};

use super::{
    Dialect,
    accent::{self, Accent},
    neutral::{Effort, Request},
};
use crate::text::{
    edit::{Edit, EditKind},
    tree::{Text, Tree},
};

/// The efforts that a model can make in thinking, from less to more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EffortWord {
    /// Not at all.
    None,
    /// `minimal`
    Minimal,
    /// `low`
    Low,
    /// `medium`
    Medium,
    /// `high`
    High,
    /// `xhigh`
    Xhigh,
    /// `max`
    Max,
}

/// The tiers in which a platform serves a request, each at its price.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ServiceTier {
    /// The tier that the account is set up for.
    Auto,
    /// The tier that most requests have.
    Default,
    /// Later, for less.
    Flex,
    /// Sooner, for more.
    Priority,
}

/// The demands of an operator on requests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Demands {
    /// The model thinks so much.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effort: Option<EffortWord>,
    /// The model thinks no more than that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_effort: Option<EffortWord>,
    /// The service tier is this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tier: Option<ServiceTier>,
}

/// The members of a dialect's requests that say such things.
#[derive(Debug)]
pub struct Steering {
    /// The members that say the effort; the first is made where none is there.
    pub efforts: &'static [EffortMember],
    /// The objects in which an accent's members of effort stand.
    pub within: &'static [&'static str],
    /// The member by which the model does not think at all, and its value, where that is no effort.
    pub off: Option<(&'static str, &'static str)>,
    /// The effort of a model that can think, where nothing is said; none where models differ.
    pub unsaid: Option<EffortWord>,
    /// Every model takes an effort, whatever its accent says.
    pub takes_efforts: bool,
    /// The members that say the service tier.
    pub tiers: &'static [TierMember],
}

/// A member that says how much the model is to think.
#[derive(Debug)]
pub struct EffortMember {
    /// The names of the objects around it, and its own.
    pub path: &'static [&'static str],
    /// The form in which it says that.
    pub form: EffortForm,
    /// Single platforms alone have this member, and it says nothing elsewhere.
    pub is_own: bool,
}

/// The form in which a member says the effort.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EffortForm {
    /// A word, from the first of these to the second.
    Word(EffortWord, EffortWord),
    /// The same in capital letters.
    Capitals(EffortWord, EffortWord),
    /// The most tokens.
    Tokens {
        /// The fewest that may be said.
        least: u64,
        /// The tokens are part of another bound, so a larger number may be wrong.
        within_bound: bool,
    },
}

/// A member that says the service tier.
#[derive(Debug)]
pub struct TierMember {
    /// Its name.
    pub name: &'static str,
    /// Its values, in JSON, in the order of [`ServiceTier`]; none where it says nothing of that.
    pub values: [Option<&'static str>; 4],
    /// The condition under which it is made where it is not there.
    pub makes: Makes,
}

/// The condition under which a member is made that is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Makes {
    /// Made if the accent says that it is taken.
    IfTaken,
    /// Made unless the endpoint refuses it.
    UnlessRefused,
    /// Never made.
    Never,
}

/// The facts of a platform that matter for demands.
#[derive(Debug, Clone, Copy)]
pub struct Steered<'a> {
    /// The accent in which it speaks the dialect.
    pub accent: &'a Accent,
    /// Members of a request that its endpoint refuses.
    pub refuses: &'a [String],
}

// === impl EffortWord ===

impl EffortWord {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::None,
        Self::Minimal,
        Self::Low,
        Self::Medium,
        Self::High,
        Self::Xhigh,
        Self::Max,
    ];

    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Minimal => "minimal",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Xhigh => "xhigh",
            Self::Max => "max",
        }
    }

    /// The effort of this word, in any case of letters.
    pub fn parse(word: &str) -> Option<Self> {
        let mut all = Self::ALL.into_iter();
        all.find(|one| one.as_str().eq_ignore_ascii_case(word))
    }

    /// The most tokens that are so much.
    fn tokens(self) -> u64 {
        match self {
            Self::None => 0,
            Self::Minimal => 512,
            Self::Low => 1024,
            Self::Medium => 8192,
            Self::High => 24576,
            Self::Xhigh | Self::Max => 32768,
        }
    }
}

// === impl ServiceTier ===

impl ServiceTier {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Auto, Self::Default, Self::Flex, Self::Priority];

    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Default => "default",
            Self::Flex => "flex",
            Self::Priority => "priority",
        }
    }

    /// The tier of this word.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.as_str() == word)
    }
}

// === impl Steering ===

impl Steering {
    /// A dialect of which nothing is known.
    pub const NONE: Self = Self {
        efforts: &[],
        within: &[],
        off: None,
        unsaid: None,
        takes_efforts: false,
        tiers: &[],
    };
}

// === impl TierMember ===

impl TierMember {
    /// OpenAI's, whose values are ours.
    pub const fn openai(makes: Makes) -> Self {
        Self {
            name: "service_tier",
            values: [
                Some("\"auto\""),
                Some("\"default\""),
                Some("\"flex\""),
                Some("\"priority\""),
            ],
            makes,
        }
    }
}

// === impl EffortForm ===

impl EffortForm {
    /// The value for `word`, in JSON. `known`: the value that the accent has for it.
    fn value(self, word: EffortWord, known: Option<u64>) -> String {
        match self {
            Self::Word(least, most) => format!("\"{}\"", word.clamp(least, most).as_str()),
            Self::Capitals(least, most) => {
                let word = word.clamp(least, most).as_str();
                format!("\"{}\"", word.to_ascii_uppercase())
            }
            Self::Tokens { least, .. } => known.unwrap_or(word.tokens()).max(least).to_string(),
        }
    }

    /// Returns true if a value, as it stands in a body, is more than `most`. One that cannot be read is.
    fn is_over(self, raw: &str, most: EffortWord) -> bool {
        match self {
            Self::Word(..) | Self::Capitals(..) => {
                let inner = raw.strip_prefix('"').and_then(|raw| raw.strip_suffix('"'));
                let word = inner.map(|inner| Text::Escaped(inner).plain());
                let word = word.and_then(|word| EffortWord::parse(&word));
                word.is_none_or(|word| word > most)
            }
            Self::Tokens { .. } => match raw.parse::<i64>().map(u64::try_from) {
                Ok(Ok(tokens)) => most < EffortWord::Max && tokens > most.tokens(),
                // As many as the model likes.
                Ok(Err(_)) => EffortWord::High > most,
                Err(_) => true,
            },
        }
    }
}

// === impl Demands ===

impl Demands {
    /// Returns true if nothing is demanded.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// Puts an effort into these demands, where they have none.
    #[must_use]
    pub fn or_effort(self, effort: Option<EffortWord>) -> Self {
        Self {
            effort: self.effort.or(effort),
            ..self
        }
    }

    /// The effort to ask for, and true if it replaces whatever the caller says, false if it only bounds that.
    fn wanted(&self) -> Option<(EffortWord, bool)> {
        let most = self.max_effort;
        let forced = self
            .effort
            .map(|word| most.map_or(word, |most| word.min(most)));
        let forced = forced.map(|word| (word, true));
        forced.or(most.map(|most| (most, false)))
    }

    /// The edits of a request's body, of this dialect, for a platform that speaks it; none for a body that is no
    /// object.
    pub fn edits(
        &self,
        dialect: Dialect,
        platform: Steered<'_>,
        body: &Tree<'_>,
    ) -> Option<Vec<Edit>> {
        let steering = dialect.format().steering();
        let mut edits = Vec::new();
        if let Some((wanted, forced)) = self.wanted() {
            edits = effort_edits::effort_edits(steering, platform.accent, body, wanted, forced)?;
        }
        edits.extend(self.tier_edits(dialect, platform));
        Some(edits)
    }

    /// Makes those of the edits that say the service tier.
    pub fn tier_edits(&self, dialect: Dialect, platform: Steered<'_>) -> Vec<Edit> {
        let mut edits = Vec::new();
        let Some(tier) = self.tier else {
            return edits;
        };
        for member in dialect.format().steering().tiers {
            let at = ServiceTier::ALL.iter().position(|one| *one == tier);
            let value = at.and_then(|at| *member.values.get(at)?);
            let makes = match member.makes {
                Makes::IfTaken => platform.accent.has(accent::TAKES, "service_tier"),
                Makes::UnlessRefused => !platform.refuses.iter().any(|name| name == member.name),
                Makes::Never => false,
            };
            edits.extend(value.map(|value| edit(&[member.name], value.to_owned(), makes)));
        }
        edits
    }

    /// Changes how much a request is to think that is written for a platform that speaks `dialect` like this.
    pub fn change(&self, request: &mut Request<'_>, dialect: Dialect, accent: &Accent) {
        let Some((wanted, forced)) = self.wanted() else {
            return;
        };
        let steering = dialect.format().steering();
        let nearest = match forced {
            true => accent.nearest_effort(wanted.as_str()),
            false => accent.most_effort(wanted.as_str()),
        };
        let takes = steering.takes_efforts || nearest.is_some();
        // What is written is the next one that the platform takes.
        let is_more = |said: &str| {
            let written = accent.nearest_effort(said).unwrap_or(said);
            EffortWord::parse(written).is_none_or(|word| word > wanted)
        };
        let is_changed = match &request.reasoning.effort {
            Some(_) if forced => true,
            Some(said) => is_more(&said.word()),
            None if forced => takes,
            None => takes && steering.unsaid.is_some_and(|unsaid| unsaid > wanted),
        };
        if is_changed {
            let word = Text::made(wanted.as_str().to_owned());
            request.reasoning.effort = Some(match nearest.unwrap_or(wanted.as_str()) {
                "none" => Effort::Off,
                _ => Effort::Word(word),
            });
        }
    }
}

fn edit(path: &[&str], value: String, makes: bool) -> Edit {
    Edit {
        path: owned(path),
        value,
        kind: match makes {
            true => EditKind::Set,
            false => EditKind::Replace,
        },
    }
}

fn owned(path: &[&str]) -> Vec<String> {
    path.iter().map(|name| (*name).to_owned()).collect()
}

#[cfg(test)]
mod tests;
