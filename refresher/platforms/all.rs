// The built-in profiles, each by its id and with its text. An expression: the refresher includes it, and so does `fuzz`.
{
    macro_rules! profiles {
        ($($id:literal)+) => {
            &[$(($id, include_str!(concat!($id, ".toml")))),+]
        };
    }
    profiles![
        "openai-compatible"
        "openai-compatible-messages"
        "anthropic"
        "azure-openai"
        "azure-openai-deployments"
        "claude-code"
        "codex"
        "custom"
        "deepseek"
        "doubao"
        "ernie-v1"
        "gemini"
        "gemini-code-assist"
        "mistral"
        "moonshot"
        "ollama"
        "openai"
        "openrouter"
        "qianfan"
        "qianfan-iam"
        "qwen"
        "spark"
        "vllm"
        "xai"
        "zhipu"
        "zhipu-signed"
    ]
}
