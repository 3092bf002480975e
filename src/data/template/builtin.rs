//! Chat templates that `model.chat_template` can ask for by name. The formats are their models'; the wording is ours.

/// The names, for messages.
pub const NAMES: &[&str] = &["chatml", "llama-3", "mistral", "gemma", "phi-3", "zephyr"];

/// A template by its name.
pub fn named(name: &str) -> Option<&'static str> {
    Some(match name {
        "chatml" => CHATML,
        "llama-3" | "llama3" => LLAMA3,
        "mistral" => MISTRAL,
        "gemma" => GEMMA,
        "phi-3" | "phi3" => PHI3,
        "zephyr" => ZEPHYR,
        _ => return None,
    })
}

/// OpenAI's chat markup; Qwen, SmolLM and many others.
const CHATML: &str = r"{%- for message in messages %}
{{- '<|im_start|>' + message['role'] + '\n' }}
{%- if message['role'] == 'assistant' %}
{%- generation %}{{ message['content'] + '<|im_end|>\n' }}{%- endgeneration %}
{%- else %}
{{- message['content'] + '<|im_end|>\n' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|im_start|>assistant\n' }}
{%- endif %}";

/// Llama 3 Instruct.
const LLAMA3: &str = r"{{- bos_token }}
{%- for message in messages %}
{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' }}
{%- if message['role'] == 'assistant' %}
{%- generation %}{{ message['content'] | trim + '<|eot_id|>' }}{%- endgeneration %}
{%- else %}
{{- message['content'] | trim + '<|eot_id|>' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}
{%- endif %}";

/// Mistral Instruct: a system message is the beginning of the first user turn.
const MISTRAL: &str = r"{{- bos_token }}
{%- set ns = namespace(system='') %}
{%- for message in messages %}
{%- if message['role'] == 'system' %}
{%- set ns.system = message['content'] + '\n\n' %}
{%- elif message['role'] == 'user' %}
{{- '[INST] ' + ns.system + message['content'] + ' [/INST]' }}
{%- set ns.system = '' %}
{%- elif message['role'] == 'assistant' %}
{%- generation %}{{ ' ' + message['content'] | trim + eos_token }}{%- endgeneration %}
{%- else %}
{{- raise_exception('the mistral template knows system, user and assistant only, not ' + message['role']) }}
{%- endif %}
{%- endfor %}";

/// Gemma: no system role; a system message is the beginning of the first user turn.
const GEMMA: &str = r"{{- bos_token }}
{%- set ns = namespace(system='') %}
{%- for message in messages %}
{%- if message['role'] == 'system' %}
{%- set ns.system = message['content'] | trim + '\n\n' %}
{%- elif message['role'] == 'assistant' %}
{{- '<start_of_turn>model\n' }}
{%- generation %}{{ message['content'] | trim + '<end_of_turn>\n' }}{%- endgeneration %}
{%- else %}
{{- '<start_of_turn>' + message['role'] + '\n' + ns.system + message['content'] | trim + '<end_of_turn>\n' }}
{%- set ns.system = '' %}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<start_of_turn>model\n' }}
{%- endif %}";

/// Phi-3 Instruct.
const PHI3: &str = r"{%- for message in messages %}
{{- '<|' + message['role'] + '|>\n' }}
{%- if message['role'] == 'assistant' %}
{%- generation %}{{ message['content'] + '<|end|>\n' }}{%- endgeneration %}
{%- else %}
{{- message['content'] + '<|end|>\n' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|assistant|>\n' }}
{%- endif %}";

/// Zephyr.
const ZEPHYR: &str = r"{%- for message in messages %}
{{- '<|' + message['role'] + '|>\n' }}
{%- if message['role'] == 'assistant' %}
{%- generation %}{{ message['content'] + eos_token + '\n' }}{%- endgeneration %}
{%- else %}
{{- message['content'] + eos_token + '\n' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|assistant|>\n' }}
{%- endif %}";
