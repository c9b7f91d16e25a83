//! The operator's word on how much a model is to think and in which service tier, whatever the caller says.
//!
//! A request that is not translated says it in the members of its dialect ([`Steering`]): those alone change, all else
//! stays. In one that is translated it is the neutral form that changes.

use serde::{Deserialize, Serialize};

use super::{
    Dialect,
    accent::{self, Accent},
    neutral::{Effort, Request},
};
use crate::text::{
    edit::{Edit, Place, each, snake},
    tree::{Text, Tree},
};

/// How much a model is to think, from less to more.
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

/// How a platform serves a request, for which price.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ServiceTier {
    /// As the account is set up.
    Auto,
    /// As most are.
    Default,
    /// Later, for less.
    Flex,
    /// Sooner, for more.
    Priority,
}

/// What an operator demands of requests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Demands {
    /// The model thinks so much.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effort: Option<EffortWord>,
    /// It thinks no more than that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_effort: Option<EffortWord>,
    /// The service tier is this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tier: Option<ServiceTier>,
}

/// The members of a dialect's requests that say such things.
#[derive(Debug)]
pub struct Steering {
    /// Those that say how much the model is to think; the first is made where none is there.
    pub efforts: &'static [EffortMember],
    /// The objects in which an accent's members of effort stand.
    pub within: &'static [&'static str],
    /// The member by which the model does not think at all, and its value, where that is no effort.
    pub off: Option<(&'static str, &'static str)>,
    /// How much a model thinks that can, where nothing is said; none where models differ.
    pub unsaid: Option<EffortWord>,
    /// Every model takes an effort, whatever its accent says.
    pub takes_efforts: bool,
    /// Those that say the service tier.
    pub tiers: &'static [TierMember],
}

/// A member that says how much the model is to think.
#[derive(Debug)]
pub struct EffortMember {
    /// The names of the objects around it, and its own.
    pub path: &'static [&'static str],
    /// How it says that.
    pub form: EffortForm,
}

/// How a member says how much the model is to think.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EffortForm {
    /// By a word from the first of these to the second.
    Word(EffortWord, EffortWord),
    /// The same in capital letters.
    Capitals(EffortWord, EffortWord),
    /// By the most tokens.
    Tokens {
        /// The fewest that may be said.
        least: u64,
        /// They are part of another bound, so a larger number may be wrong.
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
    /// It is made where it is not there.
    pub makes: Makes,
}

/// When a member is made that is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Makes {
    /// Where the accent says that it is taken.
    IfTaken,
    /// Unless the endpoint refuses it.
    UnlessRefused,
    /// Never.
    Never,
}

/// What of a platform matters for it.
#[derive(Debug, Clone, Copy)]
pub struct Steered<'a> {
    /// How it speaks the dialect.
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

    /// Tells a value, as it stands in a body, that is more than `most`. One that cannot be read is.
    fn is_over(self, raw: &[u8], most: EffortWord) -> bool {
        let raw = std::str::from_utf8(raw).unwrap_or_default();
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
    /// Tells that nothing is demanded.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// These demands, with an effort where they have none.
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
    /// object of JSON.
    pub fn edits(&self, dialect: Dialect, platform: Steered<'_>, body: &[u8]) -> Option<Vec<Edit>> {
        let steering = dialect.format().steering();
        let mut edits = Vec::new();
        if let Some((wanted, forced)) = self.wanted() {
            edits = effort_edits(steering, platform.accent, body, wanted, forced)?;
        }
        edits.extend(self.tier_edits(dialect, platform));
        Some(edits)
    }

    /// Those of them that say the service tier.
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
        let takes = steering.takes_efforts || accent.nearest_effort(wanted.as_str()).is_some();
        let is_changed = match &request.reasoning.effort {
            Some(_) if forced => true,
            Some(said) => EffortWord::parse(&said.word()).is_none_or(|word| word > wanted),
            None if forced => takes,
            None => takes && steering.unsaid.is_some_and(|unsaid| unsaid > wanted),
        };
        if is_changed {
            let word = Text::made(wanted.as_str().to_owned());
            request.reasoning.effort = Some(match wanted {
                EffortWord::None => Effort::Off,
                _ => Effort::Word(word),
            });
        }
    }
}

/// The edits by which a body asks for `wanted`, or for no more than that.
fn effort_edits(
    steering: &Steering,
    accent: &Accent,
    body: &[u8],
    wanted: EffortWord,
    forced: bool,
) -> Option<Vec<Edit>> {
    let nearest = accent.nearest_effort(wanted.as_str());
    let word = nearest.and_then(EffortWord::parse).unwrap_or(wanted);
    let paths: Vec<Vec<String>> = steering.efforts.iter().map(|one| owned(one.path)).collect();
    let slices: Vec<&[String]> = paths.iter().map(Vec::as_slice).collect();
    // Of each member, that it is there, and that it is too much.
    let mut said = vec![(false, false); paths.len()];
    each(body, &slices, &mut |which, raw| {
        let member = steering.efforts.get(which).zip(said.get_mut(which));
        if let Some((member, said)) = member.filter(|_| raw != b"null") {
            said.0 = true;
            said.1 |= member.form.is_over(raw, wanted);
        }
    })?;
    let takes = steering.takes_efforts || nearest.is_some();
    let members = nearest.and_then(|word| accent.effort(word));
    let mut edits = Vec::new();
    let is_off = word == EffortWord::None;
    let off = steering.off.filter(|_| is_off);
    edits.extend(off.map(|(name, value)| edit(&[name], value.to_owned(), takes)));
    // An accent's own members, where they are the body's.
    let own = members.filter(|_| steering.within.is_empty() && (forced || is_off));
    for (name, value) in own.into_iter().flatten() {
        edits.push(edit(&[name], value.to_string(), true));
    }
    let is_free = |path: &[String]| {
        let mut edits = edits.iter();
        !edits.any(|edit: &Edit| edit.path.first() == path.first())
    };
    let mut rest = Vec::new();
    for ((member, path), (is_there, is_over)) in steering.efforts.iter().zip(&paths).zip(&said) {
        let may_grow =
            !matches!(member.form, EffortForm::Tokens { within_bound, .. } if within_bound);
        if *is_there && (*is_over || (forced && may_grow)) && is_free(path) {
            let known = members.and_then(|all| all.get(path.last()?)?.as_u64());
            rest.push(Edit {
                path: path.clone(),
                value: member.form.value(word, known),
                place: Place::There,
            });
        }
    }
    // What is said in a member that another one hides is not said.
    let tree = Tree::read(body).ok()?;
    let is_said = |path: &Vec<String>| {
        let last = path.iter().try_fold(tree.root(), |here, name| {
            let other = || here.get(&snake(name).collect::<String>());
            here.get(name).or_else(other)
        });
        last.is_some()
    };
    let is_unsaid = edits.is_empty() && !paths.iter().any(is_said);
    let is_too_much = steering.unsaid.is_some_and(|unsaid| unsaid > wanted);
    // A model of which the form is another one thinks only where it is asked to.
    let has_word = accent
        .word(accent::THINKING)
        .is_none_or(|form| form == "adaptive");
    if is_unsaid && takes && has_word && (forced || is_too_much) {
        match (members, steering.efforts.first()) {
            (Some(members), _) => rest.extend(members.iter().map(|(name, value)| {
                let path = [steering.within, &[name.as_str()]].concat();
                edit(&path, value.to_string(), true)
            })),
            (None, Some(first)) => rest.push(edit(first.path, first.form.value(word, None), true)),
            (None, None) => {}
        }
    }
    edits.append(&mut rest);
    Some(edits)
}

fn edit(path: &[&str], value: String, makes: bool) -> Edit {
    Edit {
        path: owned(path),
        value,
        place: match makes {
            true => Place::Anywhere,
            false => Place::There,
        },
    }
}

fn owned(path: &[&str]) -> Vec<String> {
    path.iter().map(|name| (*name).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        dialect::{Target, translation},
        text::edit::edited,
    };

    fn accent(members: &Value) -> Accent {
        Accent::parse(members.as_object().unwrap().clone()).unwrap()
    }

    /// `force:low`, `most:low`, `tier:flex`
    fn demands(text: &str) -> Demands {
        let mut demands = Demands::default();
        for one in text.split(' ') {
            let (name, word) = one.split_once(':').unwrap();
            match name {
                "force" => demands.effort = EffortWord::parse(word),
                "most" => demands.max_effort = EffortWord::parse(word),
                _ => demands.tier = ServiceTier::parse(word),
            }
        }
        demands
    }

    fn made(dialect: Dialect, demanded: &str, accent: &Accent, body: &str) -> String {
        let platform = Steered {
            accent,
            refuses: &[],
        };
        let edits = demands(demanded).edits(dialect, platform, body.as_bytes());
        String::from_utf8(edited(body.as_bytes(), &edits.unwrap()).unwrap()).unwrap()
    }

    /// One line for each: the dialect, what is demanded, the body, and what goes out.
    #[test]
    fn the_members_of_the_dialect_change_and_nothing_else() {
        let openai = accent(
            &json!({"efforts": ["none", "low", "medium", "high"], "takes": ["service_tier"]}),
        );
        let adaptive = accent(
            &json!({"thinking": "adaptive", "efforts": ["none", "low", "medium", "high", "max"]}),
        );
        let budget = accent(&json!({"thinking": "budget", "efforts": EFFORTS}));
        let gemini = accent(&json!({"effort": {
            "low": {"thinkingLevel": "LOW"}, "high": {"thinkingLevel": "HIGH"},
        }}));
        let flash = accent(&json!({"effort": {
            "none": {"thinkingBudget": 0}, "low": {"thinkingBudget": 1000},
        }}));
        let glm = accent(&json!({"effort": {
            "none": {"thinking": {"type": "disabled"}}, "high": {"thinking": {"type": "enabled"}},
        }}));
        let (none, same) = (Accent::default(), "=");
        for (dialect, demanded, accent, body, expected) in [
            // No more than that.
            (
                Dialect::Chat,
                "most:medium",
                &openai,
                r#"{"reasoning_effort": "high" }"#,
                r#"{"reasoning_effort": "medium" }"#,
            ),
            (
                Dialect::Chat,
                "most:medium",
                &openai,
                r#"{"reasoning_effort":"low"}"#,
                same,
            ),
            (
                Dialect::Chat,
                "most:medium",
                &openai,
                r#"{"reasoning_effort":"ultra"}"#,
                r#"{"reasoning_effort":"medium"}"#,
            ),
            (
                Dialect::Chat,
                "most:medium",
                &openai,
                r#"{"reasoning_effort":null}"#,
                same,
            ),
            (Dialect::Chat, "most:medium", &openai, r#"{"x":1}"#, same),
            (
                Dialect::Chat,
                "most:low",
                &none,
                r#"{"reasoning_effort":"low","reasoning_effort":"high","reasoning":{"effort":"high","max_tokens":9000},"thinking_budget":100}"#,
                r#"{"reasoning_effort":"low","reasoning_effort":"low","reasoning":{"effort":"low","max_tokens":1024},"thinking_budget":100}"#,
            ),
            (
                Dialect::Responses,
                "most:low",
                &none,
                r#"{"reasoning":{"effort":"xhigh","summary":"auto"}}"#,
                r#"{"reasoning":{"effort":"low","summary":"auto"}}"#,
            ),
            (Dialect::Responses, "most:low", &none, "{}", same),
            (
                Dialect::Messages,
                "most:medium",
                &budget,
                r#"{"thinking":{"type":"enabled","budget_tokens":20000}}"#,
                r#"{"thinking":{"type":"enabled","budget_tokens":8192}}"#,
            ),
            (
                Dialect::Messages,
                "most:minimal",
                &budget,
                r#"{"thinking":{"type":"enabled","budget_tokens":20000}}"#,
                r#"{"thinking":{"type":"enabled","budget_tokens":1024}}"#,
            ),
            (Dialect::Messages, "most:medium", &budget, "{}", same),
            // What another member hides is not said.
            (
                Dialect::Messages,
                "most:medium",
                &adaptive,
                r#"{"thinking":{"type":"enabled","budget_tokens":1024},"thinking":{"type":"adaptive"}}"#,
                r#"{"thinking":{"type":"enabled","budget_tokens":1024},"thinking":{"type":"adaptive"},"output_config":{"effort":"medium"}}"#,
            ),
            (
                Dialect::Chat,
                "most:low",
                &none,
                r#"{"extra_body":{"google":{"thinking_config":{"thinking_budget":24576}}}}"#,
                r#"{"extra_body":{"google":{"thinking_config":{"thinking_budget":1024}}}}"#,
            ),
            (
                Dialect::Messages,
                "most:max",
                &budget,
                r#"{"thinking":{"type":"enabled","budget_tokens":60000}}"#,
                same,
            ),
            // Those models think much where nothing is said.
            (
                Dialect::Messages,
                "most:medium",
                &adaptive,
                r#"{"thinking":{"type":"adaptive"}}"#,
                r#"{"thinking":{"type":"adaptive"},"output_config":{"effort":"medium"}}"#,
            ),
            (Dialect::Messages, "most:high", &adaptive, "{}", same),
            (
                Dialect::Messages,
                "most:low",
                &adaptive,
                r#"{"output_config":{"effort":"max"}}"#,
                r#"{"output_config":{"effort":"low"}}"#,
            ),
            (
                Dialect::Messages,
                "most:none",
                &adaptive,
                r#"{"output_config":{"effort":"max"}}"#,
                r#"{"output_config":{"effort":"low"},"thinking":{"type":"disabled"}}"#,
            ),
            (
                Dialect::Messages,
                "most:none",
                &none,
                r#"{"thinking":{"type":"enabled","budget_tokens":2000}}"#,
                r#"{"thinking":{"type":"disabled"}}"#,
            ),
            (
                Dialect::Gemini,
                "most:low",
                &gemini,
                "{}",
                r#"{"generationConfig":{"thinkingConfig":{"thinkingLevel":"LOW"}}}"#,
            ),
            (
                Dialect::Gemini,
                "most:low",
                &gemini,
                r#"{"generation_config":{"thinking_config":{"thinking_level":"high","include_thoughts":true}}}"#,
                r#"{"generation_config":{"thinking_config":{"thinking_level":"LOW","include_thoughts":true}}}"#,
            ),
            (
                Dialect::Gemini,
                "most:low",
                &flash,
                r#"{"generationConfig":{"thinkingConfig":{"thinkingBudget":-1}}}"#,
                r#"{"generationConfig":{"thinkingConfig":{"thinkingBudget":1000}}}"#,
            ),
            (
                Dialect::Gemini,
                "most:high",
                &flash,
                r#"{"generationConfig":{"thinkingConfig":{"thinkingBudget":-1}}}"#,
                same,
            ),
            // Just that.
            (
                Dialect::Chat,
                "force:high",
                &openai,
                r#"{"reasoning_effort":"low"}"#,
                r#"{"reasoning_effort":"high"}"#,
            ),
            (
                Dialect::Chat,
                "force:high",
                &openai,
                "{}",
                r#"{"reasoning_effort":"high"}"#,
            ),
            (Dialect::Chat, "force:high", &none, r#"{"x":1}"#, same),
            (
                Dialect::Chat,
                "force:high most:low",
                &openai,
                "{}",
                r#"{"reasoning_effort":"low"}"#,
            ),
            (
                Dialect::Chat,
                "force:none",
                &glm,
                r#"{"thinking":{"type":"enabled"},"x":1}"#,
                r#"{"thinking":{"type":"disabled"},"x":1}"#,
            ),
            (
                Dialect::Chat,
                "force:max",
                &glm,
                r#"{"thinking":{"type":"disabled"}}"#,
                r#"{"thinking":{"type":"enabled"}}"#,
            ),
            (
                Dialect::Responses,
                "force:medium",
                &none,
                r#"{"reasoning":null}"#,
                r#"{"reasoning":{"effort":"medium"}}"#,
            ),
            (
                Dialect::Messages,
                "force:high",
                &budget,
                r#"{"thinking":{"type":"enabled","budget_tokens":2000}}"#,
                same,
            ),
            (
                Dialect::Messages,
                "force:high",
                &adaptive,
                "{}",
                r#"{"output_config":{"effort":"high"}}"#,
            ),
            (
                Dialect::Gemini,
                "force:minimal",
                &gemini,
                "{}",
                r#"{"generationConfig":{"thinkingConfig":{"thinkingLevel":"LOW"}}}"#,
            ),
            // The service tier.
            (
                Dialect::Chat,
                "tier:default",
                &openai,
                r#"{"service_tier":"priority"}"#,
                r#"{"service_tier":"default"}"#,
            ),
            (
                Dialect::Chat,
                "tier:flex",
                &openai,
                "{}",
                r#"{"service_tier":"flex"}"#,
            ),
            (Dialect::Chat, "tier:flex", &none, "{}", same),
            (
                Dialect::Responses,
                "tier:default",
                &none,
                "{}",
                r#"{"service_tier":"default"}"#,
            ),
            (
                Dialect::Messages,
                "tier:default",
                &none,
                r#"{"service_tier":"auto","speed":"fast"}"#,
                r#"{"service_tier":"standard_only","speed":"standard"}"#,
            ),
            (
                Dialect::Gemini,
                "tier:flex",
                &none,
                r#"{"service_tier":"priority"}"#,
                r#"{"service_tier":"flex"}"#,
            ),
        ] {
            let expected = if expected == same { body } else { expected };
            assert_eq!(
                made(dialect, demanded, accent, body),
                expected,
                "{dialect:?} {demanded} {body}"
            );
        }
    }

    const EFFORTS: &[&str] = accent::EFFORT_WORDS;

    #[test]
    fn a_translated_request_says_what_is_demanded() {
        let adaptive = accent(&json!({"thinking": "adaptive", "efforts": ["none", "low", "high"]}));
        let none = Accent::default();
        for (demanded, platform, accent, effort, expected) in [
            (
                "most:low",
                Dialect::Responses,
                &none,
                json!("high"),
                json!({"effort": "low", "summary": "auto"}),
            ),
            (
                "most:high",
                Dialect::Responses,
                &none,
                json!("low"),
                json!({"effort": "low", "summary": "auto"}),
            ),
            (
                "most:low",
                Dialect::Responses,
                &none,
                Value::Null,
                json!({"summary": "auto"}),
            ),
            (
                "force:max",
                Dialect::Responses,
                &none,
                Value::Null,
                json!({"effort": "max", "summary": "auto"}),
            ),
            (
                "most:low",
                Dialect::Messages,
                &adaptive,
                Value::Null,
                json!({"effort": "low"}),
            ),
            (
                "force:low",
                Dialect::Messages,
                &adaptive,
                json!("high"),
                json!({"effort": "low"}),
            ),
            (
                "force:low",
                Dialect::Messages,
                &none,
                json!("high"),
                Value::Null,
            ),
        ] {
            let mut chat = json!({"messages": [{"role": "user", "content": "hi"}]});
            if !effort.is_null() {
                chat["reasoning_effort"] = effort.clone();
            }
            let target = Target {
                demands: demands(&format!("{demanded} tier:flex")),
                ..translation::tests::target()
            };
            let target = Target { accent, ..target };
            let made =
                Dialect::Chat.translate_request(platform, chat.to_string().as_bytes(), &target, 0);
            let body: Value = serde_json::from_slice(&made.unwrap().body).unwrap();
            let (said, tier) = match platform {
                Dialect::Messages => (&body["output_config"], Value::Null),
                _ => (&body["reasoning"], json!("flex")),
            };
            assert_eq!(
                (said, &body["service_tier"]),
                (&expected, &tier),
                "{demanded} {effort}"
            );
        }
    }

    #[test]
    fn the_tier_is_said_in_the_words_of_the_platforms_dialect() {
        let takes = accent(&json!({"takes": ["service_tier"]}));
        let none = Accent::default();
        for (platform, accent, member, expected) in [
            (
                Dialect::Messages,
                &takes,
                "service_tier",
                json!("standard_only"),
            ),
            (Dialect::Gemini, &takes, "serviceTier", json!("flex")),
            (Dialect::Gemini, &none, "serviceTier", Value::Null),
            (Dialect::Responses, &none, "service_tier", json!("flex")),
        ] {
            let target = Target {
                demands: demands("tier:flex"),
                ..translation::tests::target()
            };
            let target = Target { accent, ..target };
            let chat = json!({
                "messages": [{"role": "user", "content": "hi"}], "service_tier": "priority",
            });
            let made =
                Dialect::Chat.translate_request(platform, chat.to_string().as_bytes(), &target, 0);
            let body: Value = serde_json::from_slice(&made.unwrap().body).unwrap();
            assert_eq!(body[member], expected, "{platform:?}");
        }
    }

    fn bodies() -> impl Strategy<Value = Value> {
        let word = prop::sample::select(EFFORTS.to_vec());
        let tokens = -1_i64..40_000;
        prop_oneof![
            word.clone()
                .prop_map(|word| json!({"reasoning_effort": word})),
            word.clone()
                .prop_map(|word| json!({"reasoning": {"effort": word}})),
            word.prop_map(|word| json!({"output_config": {"effort": word}})),
            tokens
                .clone()
                .prop_map(|n| json!({"thinking": {"type": "enabled", "budget_tokens": n}})),
            tokens.prop_map(
                |n| json!({"generationConfig": {"thinkingConfig": {"thinkingBudget": n}}})
            ),
            Just(json!({"x": [1, {"reasoning_effort": "max"}]})),
        ]
    }

    proptest! {
        /// What was bounded once is within the bound; and what a bound makes of a body is no more than the body.
        #[test]
        fn a_bound_holds_and_holds_once(
            body in bodies(),
            most in prop::sample::select(EffortWord::ALL.to_vec()),
            dialect in prop::sample::select(Dialect::ALL.to_vec()),
        ) {
            let demanded = format!("most:{}", most.as_str());
            let once = made(dialect, &demanded, &Accent::default(), &body.to_string());
            let twice = made(dialect, &demanded, &Accent::default(), &once);
            prop_assert_eq!(&once, &twice);
            let steering = dialect.format().steering();
            for member in steering.efforts {
                let place = format!("/{}", member.path.join("/"));
                let value: Value = serde_json::from_str(&once).unwrap();
                let Some(found) = value.pointer(&place) else { continue };
                let least = match member.form {
                    EffortForm::Word(least, _) | EffortForm::Capitals(least, _) => least,
                    EffortForm::Tokens { least: 1024, .. } => EffortWord::Low,
                    EffortForm::Tokens { .. } => EffortWord::None,
                };
                let is_over = member.form.is_over(found.to_string().as_bytes(), most.max(least));
                prop_assert!(!is_over, "{} {}", once, most.as_str());
            }
        }
    }
}
