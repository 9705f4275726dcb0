//! Who is meant by LiteLLM's names of providers, and how are their addresses written there?

/// How an address is written for LiteLLM.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Address {
    /// As tollgate has it.
    Same,
    /// Without `/v1/messages`.
    Anthropic,
    /// Without `/openai/v1`.
    Azure,
    /// Without `/v1`.
    Bare,
}

/// A provider by LiteLLM's name, the preset that is meant, and the variable that LiteLLM reads its key from.
pub(super) type Known = (&'static str, &'static str, &'static str, Address);

/// In the order of the presets.
const KNOWN: &[Known] = &[
    ("openai", "openai", "OPENAI_API_KEY", Address::Same),
    (
        "text-completion-openai",
        "openai",
        "OPENAI_API_KEY",
        Address::Same,
    ),
    ("azure", "azure", "AZURE_API_KEY", Address::Azure),
    ("azure_text", "azure", "AZURE_API_KEY", Address::Azure),
    ("azure_ai", "azure", "AZURE_AI_API_KEY", Address::Azure),
    ("groq", "groq", "GROQ_API_KEY", Address::Same),
    (
        "openrouter",
        "openrouter",
        "OPENROUTER_API_KEY",
        Address::Same,
    ),
    ("mistral", "mistral", "MISTRAL_API_KEY", Address::Same),
    ("deepseek", "deepseek", "DEEPSEEK_API_KEY", Address::Same),
    ("xai", "xai", "XAI_API_KEY", Address::Same),
    ("together_ai", "together", "TOGETHER_API_KEY", Address::Same),
    (
        "fireworks_ai",
        "fireworks",
        "FIREWORKS_API_KEY",
        Address::Same,
    ),
    ("cohere", "cohere", "COHERE_API_KEY", Address::Same),
    ("cohere_chat", "cohere", "COHERE_API_KEY", Address::Same),
    ("gemini", "gemini-openai", "GEMINI_API_KEY", Address::Same),
    (
        "anthropic",
        "anthropic-openai",
        "ANTHROPIC_API_KEY",
        Address::Anthropic,
    ),
    (
        "vercel_ai_gateway",
        "vercel",
        "VERCEL_AI_GATEWAY_API_KEY",
        Address::Same,
    ),
    (
        "litellm_proxy",
        "litellm",
        "LITELLM_PROXY_API_KEY",
        Address::Bare,
    ),
    ("ollama", "ollama", "", Address::Bare),
    ("ollama_chat", "ollama", "", Address::Bare),
    ("llamafile", "llama-cpp", "", Address::Same),
    ("hosted_vllm", "vllm", "", Address::Same),
    ("lm_studio", "lm-studio", "", Address::Same),
    ("oobabooga", "text-generation-webui", "", Address::Same),
    ("custom_openai", OTHER, "", Address::Same),
    ("openai_like", OTHER, "", Address::Same),
    ("cerebras", "cerebras", "CEREBRAS_API_KEY", Address::Same),
    (
        "huggingface",
        "huggingface",
        "HUGGINGFACE_API_KEY",
        Address::Same,
    ),
    ("nvidia_nim", "nvidia", "NVIDIA_NIM_API_KEY", Address::Same),
    (
        "perplexity",
        "perplexity",
        "PERPLEXITYAI_API_KEY",
        Address::Same,
    ),
    ("sambanova", "sambanova", "SAMBANOVA_API_KEY", Address::Same),
];

/// The preset of any other server that speaks OpenAI's format.
pub(super) const OTHER: &str = "openai-compatible";

/// Those whose format is none of OpenAI's.
const FOREIGN: &[&str] = &[
    "bedrock",
    "bedrock_converse",
    "databricks",
    "nlp_cloud",
    "oci",
    "predibase",
    "replicate",
    "sagemaker",
    "sagemaker_chat",
    "snowflake",
    "triton",
    "vertex_ai",
    "vertex_ai_beta",
    "watsonx",
    "watsonx_text",
];

/// The providers of models that are named without one, by how their names begin.
const UNNAMED: &[(&str, &str)] = &[
    ("gpt-", "openai"),
    ("chatgpt-", "openai"),
    ("o1", "openai"),
    ("o3", "openai"),
    ("o4", "openai"),
    ("text-embedding-", "openai"),
    ("dall-e", "openai"),
    ("whisper", "openai"),
    ("tts-", "openai"),
    ("omni-moderation", "openai"),
    ("text-moderation", "openai"),
    ("ft:", "openai"),
    ("davinci", "openai"),
    ("babbage", "openai"),
    ("claude-", "anthropic"),
    ("command", "cohere"),
    ("embed-", "cohere"),
    ("rerank-", "cohere"),
    ("deepseek-", "deepseek"),
    ("mistral-", "mistral"),
];

/// What is known of a provider by LiteLLM's name; or why it cannot be asked.
pub(super) fn known(prefix: &str, model: &str, has_address: bool) -> Result<Known, String> {
    if FOREIGN.contains(&prefix) || (prefix == "azure_ai" && model.starts_with("claude")) {
        return Err(format!(
            "{prefix} speaks a format of its own here, which tollgate does not speak yet"
        ));
    }
    if prefix == "auto_router" {
        return Err("tollgate does not choose a model by what is asked; see `strategy` for what it chooses by".to_owned());
    }
    if let Some(known) = KNOWN.iter().find(|(name, ..)| *name == prefix) {
        return Ok(*known);
    }
    if has_address {
        return Ok(("openai_like", OTHER, "", Address::Same));
    }
    Err(format!(
        "no preset is like `{prefix}`; if it speaks OpenAI's format, write a provider with preset = \"{OTHER}\" and its base_url"
    ))
}

/// Whose a model is, by how its name begins.
pub(super) fn guessed(model: &str) -> Option<&'static str> {
    let found = UNNAMED.iter().find(|(begins, _)| model.starts_with(begins));
    found.map(|(_, prefix)| *prefix)
}

/// An address as tollgate has it.
pub(super) fn adapted(url: &str, address: Address) -> String {
    let url = url.trim_end_matches('/');
    let bare = |ends: &[&str]| {
        let mut bare = ends.iter().filter_map(|end| url.strip_suffix(end));
        bare.next().unwrap_or(url).to_owned()
    };
    match address {
        Address::Same => bare(&["/chat/completions"]),
        Address::Anthropic => bare(&["/v1/messages", "/v1"]) + "/v1",
        Address::Bare => bare(&["/v1"]) + "/v1",
        Address::Azure => {
            // A resource may be called openai itself.
            let path = url
                .find("://")
                .and_then(|at| Some(at + 3 + url.get(at + 3..)?.find('/')?));
            let (host, path) = url.split_at(path.unwrap_or(url.len()));
            let before = path
                .split_once("/openai")
                .map_or(path, |(before, _)| before);
            format!("{host}{before}/openai/v1")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_put_as_tollgate_has_them() {
        for (address, written, want) in [
            (Address::Same, "http://h:1/v1/", "http://h:1/v1"),
            (Address::Same, "http://h/v1/chat/completions", "http://h/v1"),
            (Address::Anthropic, "https://h", "https://h/v1"),
            (Address::Anthropic, "https://h/v1/messages", "https://h/v1"),
            (Address::Bare, "http://h:11434/", "http://h:11434/v1"),
            (Address::Bare, "http://h:11434/v1", "http://h:11434/v1"),
            (
                Address::Azure,
                "https://blue.openai.azure.com/",
                "https://blue.openai.azure.com/openai/v1",
            ),
            (
                Address::Azure,
                "https://openai-1.openai.azure.com",
                "https://openai-1.openai.azure.com/openai/v1",
            ),
            (
                Address::Azure,
                "https://openai.h/openai/deployments/x",
                "https://openai.h/openai/v1",
            ),
            (
                Address::Azure,
                "https://h/front/openai/v1/",
                "https://h/front/openai/v1",
            ),
            (Address::Azure, "openai", "openai/openai/v1"),
        ] {
            assert_eq!(adapted(written, address), want, "{written}");
        }
    }

    #[test]
    fn every_provider_that_is_known_has_a_preset() {
        let presets: std::collections::BTreeMap<String, crate::config::Provider> =
            crate::config::load::presets(crate::provider::PRESETS).unwrap();
        for (name, preset, ..) in KNOWN {
            assert!(presets.contains_key(*preset), "{name}: {preset}");
        }
    }
}
