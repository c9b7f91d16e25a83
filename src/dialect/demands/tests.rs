use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::{
    dialect::{Target, grammar, translation},
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
    let body = Tree::read(body.as_bytes()).unwrap();
    let edits = demands(demanded).edits(dialect, platform, &body);
    String::from_utf8(edited(&body, &edits.unwrap()).unwrap()).unwrap()
}

/// One line for each: the dialect, what is demanded, the body, and what goes out.
#[test]
fn the_members_of_the_dialect_change_and_nothing_else() {
    let openai =
        accent(&json!({"efforts": ["none", "low", "medium", "high"], "takes": ["service_tier"]}));
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
    let qwen = accent(&json!({"effort": {
        "none": {"enable_thinking": false}, "low": {"enable_thinking": true, "thinking_budget": 1024},
        "high": {"enable_thinking": true},
    }}));
    let deepseek = accent(&json!({"effort": {
        "none": {"thinking": {"type": "disabled"}},
        "high": {"thinking": {"type": "enabled"}, "reasoning_effort": "high"},
        "max": {"thinking": {"type": "enabled"}, "reasoning_effort": "max"},
    }}));
    let openrouter = accent(&json!({"efforts": EFFORTS, "takes": ["reasoning"]}));
    let apart = json!(["thinking", "reasoning_effort"]);
    let k3 = accent(&json!({"efforts": ["low", "high", "max"], "apart": apart}));
    let k2 = accent(&json!({"apart": apart, "effort": {
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
        // What a platform has of its own.
        (
            Dialect::Chat,
            "most:low",
            &qwen,
            r#"{"enable_thinking":true}"#,
            r#"{"enable_thinking":true,"thinking_budget":1024}"#,
        ),
        (
            Dialect::Chat,
            "most:low",
            &qwen,
            r#"{"enable_thinking":false}"#,
            same,
        ),
        (
            Dialect::Chat,
            "most:low",
            &qwen,
            r#"{"enable_thinking":null}"#,
            same,
        ),
        (Dialect::Chat, "most:low", &qwen, r#"{"x":1}"#, same),
        (
            Dialect::Chat,
            "most:low",
            &qwen,
            r#"{"enable_thinking":false,"enable_thinking":true}"#,
            r#"{"enable_thinking":true,"enable_thinking":true,"thinking_budget":1024}"#,
        ),
        (
            Dialect::Chat,
            "most:low",
            &qwen,
            r#"{"enable_thinking":true,"thinking_budget":500}"#,
            same,
        ),
        (
            Dialect::Chat,
            "most:low",
            &qwen,
            r#"{"enable_thinking":true,"thinking_budget":20000}"#,
            r#"{"enable_thinking":true,"thinking_budget":1024}"#,
        ),
        (
            Dialect::Chat,
            "most:low",
            &qwen,
            r#"{"enable_thinking":true,"reasoning_effort":"low"}"#,
            r#"{"enable_thinking":true,"reasoning_effort":"low","thinking_budget":1024}"#,
        ),
        (
            Dialect::Chat,
            "most:high",
            &qwen,
            r#"{"enable_thinking":true}"#,
            same,
        ),
        (
            Dialect::Chat,
            "most:minimal",
            &qwen,
            r#"{"enable_thinking":true,"thinking_budget":900}"#,
            r#"{"enable_thinking":false,"thinking_budget":900}"#,
        ),
        (
            Dialect::Chat,
            "most:none",
            &qwen,
            r#"{"x":1}"#,
            r#"{"x":1,"enable_thinking":false}"#,
        ),
        (
            Dialect::Chat,
            "most:low",
            &glm,
            r#"{"thinking":{"type":"enabled","clear_thinking":true}}"#,
            r#"{"thinking":{"type":"disabled","clear_thinking":true}}"#,
        ),
        (
            Dialect::Chat,
            "most:low",
            &glm,
            r#"{"thinking":{"type":"auto","budget_tokens":9}}"#,
            r#"{"thinking":{"type":"disabled","budget_tokens":9}}"#,
        ),
        (
            Dialect::Chat,
            "most:low",
            &glm,
            r#"{"thinking":{"type":"disabled","type":"enabled"}}"#,
            r#"{"thinking":{"type":"disabled","type":"disabled"}}"#,
        ),
        (
            Dialect::Chat,
            "most:low",
            &glm,
            r#"{"thinking":{"type":"disabled"}}"#,
            same,
        ),
        (
            Dialect::Chat,
            "most:low",
            &deepseek,
            r#"{"thinking":{"type":"enabled"},"reasoning_effort":"high"}"#,
            r#"{"thinking":{"type":"disabled"},"reasoning_effort":"high"}"#,
        ),
        (
            Dialect::Chat,
            "most:high",
            &deepseek,
            r#"{"thinking":{"type":"enabled"},"reasoning_effort":"max"}"#,
            r#"{"thinking":{"type":"enabled"},"reasoning_effort":"high"}"#,
        ),
        (
            Dialect::Chat,
            "most:high",
            &deepseek,
            r#"{"thinking":{"type":"enabled"}}"#,
            same,
        ),
        (
            Dialect::Chat,
            "force:low",
            &qwen,
            r#"{"thinking_budget":9000}"#,
            r#"{"thinking_budget":1024,"enable_thinking":true}"#,
        ),
        (
            Dialect::Chat,
            "force:high",
            &qwen,
            r#"{"thinking_budget":9}"#,
            r#"{"thinking_budget":24576,"enable_thinking":true}"#,
        ),
        (
            Dialect::Chat,
            "force:max",
            &deepseek,
            r#"{"x":1}"#,
            r#"{"x":1,"reasoning_effort":"max","thinking":{"type":"enabled"}}"#,
        ),
        (
            Dialect::Chat,
            "force:high",
            &openai,
            r#"{"thinking_budget":100}"#,
            r#"{"thinking_budget":24576,"reasoning_effort":"high"}"#,
        ),
        (
            Dialect::Chat,
            "force:high",
            &openai,
            r#"{"reasoning":{"effort":"low"}}"#,
            r#"{"reasoning":{"effort":"high"},"reasoning_effort":"high"}"#,
        ),
        (
            Dialect::Chat,
            "force:high",
            &openrouter,
            r#"{"reasoning":{"effort":"low"}}"#,
            r#"{"reasoning":{"effort":"high"}}"#,
        ),
        // Kimi's, of which one may not stand beside the other.
        (
            Dialect::Chat,
            "force:low",
            &k3,
            r#"{"thinking":{"type":"enabled"}, "x":1}"#,
            r#"{ "x":1,"reasoning_effort":"low"}"#,
        ),
        (
            Dialect::Chat,
            "most:low",
            &k3,
            r#"{"x":1,"thinking":{"type":"enabled"},"reasoning_effort":"max"}"#,
            r#"{"x":1,"reasoning_effort":"low"}"#,
        ),
        (
            Dialect::Chat,
            "most:high",
            &k3,
            r#"{"thinking":{"type":"enabled"},"reasoning_effort":"low"}"#,
            same,
        ),
        (
            Dialect::Chat,
            "force:high",
            &k2,
            r#"{"reasoning_effort":"low","reasoning_effort":"max"}"#,
            r#"{"thinking":{"type":"enabled"}}"#,
        ),
        (
            Dialect::Chat,
            "most:low",
            &k2,
            r#"{"thinking":{"type":"enabled"},"x":1,"reasoning_effort":"max"}"#,
            r#"{"thinking":{"type":"disabled"},"x":1}"#,
        ),
        (
            Dialect::Chat,
            "force:none",
            &k2,
            r#"{"x":1,"reasoning_effort":"max"}"#,
            r#"{"x":1,"thinking":{"type":"disabled"}}"#,
        ),
        (
            Dialect::Chat,
            "most:high",
            &k2,
            r#"{"thinking":{"type":"enabled"}}"#,
            same,
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

/// A platform that cannot be told to think so little is told not to think, where the operator allows no more.
#[test]
fn a_translated_request_thinks_no_more_than_is_allowed() {
    let glm = accent(&json!({"effort": {
        "none": {"thinking": {"type": "disabled"}}, "high": {"thinking": {"type": "enabled"}},
    }}));
    for (demanded, effort, expected) in [
        ("most:low", "high", "disabled"),
        ("most:low", "low", "disabled"),
        ("most:high", "high", "enabled"),
        ("force:low", "high", "enabled"),
        ("force:none", "high", "disabled"),
    ] {
        let target = Target {
            demands: demands(demanded),
            ..translation::tests::target()
        };
        let target = Target {
            accent: &glm,
            ..target
        };
        let asked = json!({"input": "hi", "reasoning": {"effort": effort}}).to_string();
        let made =
            Dialect::Responses.translate_request(Dialect::Chat, asked.as_bytes(), &target, 0);
        let body: Value = serde_json::from_slice(&made.unwrap().body).unwrap();
        assert_eq!(body["thinking"]["type"], expected, "{demanded} {effort}");
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
        tokens.prop_map(|n| json!({"generationConfig": {"thinkingConfig": {"thinkingBudget": n}}})),
        Just(json!({"x": [1, {"reasoning_effort": "max"}]})),
    ]
}

proptest! {
    /// What was bounded once is within the bound; and what a bound makes of a body is no more than the body.
    #[test]
    fn a_bound_holds_and_holds_once(
        body in bodies(),
        most in prop::sample::select(EffortWord::ALL.to_vec()),
        dialect in prop::sample::select(grammar::of_both().collect::<Vec<_>>()),
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
            let is_over = member.form.is_over(&found.to_string(), most.max(least));
            prop_assert!(!is_over, "{} {}", once, most.as_str());
        }
    }
}
