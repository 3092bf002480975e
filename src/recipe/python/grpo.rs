//! GRPO's part of a script: its rows, its reward functions in Python, its arguments.
//!
//! A function is TRL's own where TRL has it; the others compute what ours do.

use super::text;
use crate::recipe::{GrpoSection, RewardFunc};
use std::fmt::Write as _;

/// Prompts with what the reward functions are told of the row.
pub(super) const ROWS: &str = r#"    roles = {"human": "user", "gpt": "assistant"}
    prompt = row.get("prompt") or row.get("messages") or row.get("conversations")
    if prompt is None:
        prompt = [{"role": "user", "content": "\n".join(filter(None, [row["instruction"], row.get("input")]))}]
    row.setdefault("answer", row.get("output"))
    if not isinstance(prompt, str):
        said = [(t.get("role") or t["from"], t.get("content") or t.get("value")) for t in prompt]
        prompt = [{"role": roles.get(role, role), "content": content} for role, content in said]
        if prompt[-1]["role"] == "assistant":
            answer = prompt.pop()["content"]
            row["answer"] = row["answer"] or answer
    return {**{k: v for k, v in row.items() if k not in ("messages", "conversations")}, "prompt": prompt}
"#;

/// The same of the messages that `data.messages` make.
pub(super) const ANSWER: &str = r#"    if messages[-1]["role"] == "assistant":
        answer = messages.pop()["content"]
        row.setdefault("answer", answer)
    return {**row, "prompt": messages}
"#;

/// The completion's text, and the part of it that answers.
const WITHIN: &str = r#####"def said(completion):
    return completion if isinstance(completion, str) else completion[-1]["content"]


def within(text):
    text = str(text).split("</think>")[-1]
    if "<answer>" in text:
        return text.rsplit("<answer>", 1)[1].split("</answer>")[0].strip()
    if "####" in text:
        return (text.rsplit("####", 1)[1].splitlines() or [""])[0].strip()
    if "\\boxed{" in text:
        after, depth = text.rsplit("\\boxed{", 1)[1], 1
        for i, c in enumerate(after):
            depth += {"{": 1, "}": -1}.get(c, 0)
            if depth == 0:
                return after[:i].strip()
    return text.strip()


def last_number(text):
    found = re.findall(r"[-+]?\d+(?:,\d{3})*(?:\.\d+)?", within(text))
    return float(found[-1].replace(",", "")) if found else None


"#####;

const PROGRAM: &str = r#"class NAME:
    """A program that reads one JSON object a line and answers each with a number."""

    __name__ = "NAME"
    process = None

    def __call__(self, prompts, completions, **columns):
        if self.process is None:
            self.process = subprocess.Popen(COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
        scores = []
        for i, completion in enumerate(completions):
            row = {k: v[i] for k, v in columns.items() if isinstance(v, list) and len(v) == len(completions)}
            row.pop("completion_ids", None)
            print(json.dumps({**row, "prompt": prompts[i], "completion": said(completion)}), file=self.process.stdin, flush=True)
            scores.append(json.loads(self.process.stdout.readline()))
        return scores


"#;

/// The functions' definitions, to stand before the arguments.
pub(super) fn rewards(out: &mut String, grpo: &GrpoSection) {
    out.push_str("import json\nimport re\nimport subprocess\n\n");
    out.push_str("from trl.rewards import get_repetition_penalty_reward, get_soft_overlong_punishment, think_format_reward\n\n\n");
    out.push_str(WITHIN);
    let mut names = Vec::new();
    for (i, func) in grpo.reward_funcs.iter().enumerate() {
        let name = format!("{}_{}", func.name(), i + 1);
        let mut body = |parameters: &str, of_one: String| {
            let _ = writeln!(out, "def {name}(completions, {parameters}**columns):\n    return [{of_one}]\n\n");
        };
        match func {
            RewardFunc::ExactAnswer { column, .. } => {
                let right = format!(
                    "float(within(said(c)) == within(a)) for c, a in zip(completions, columns[{}])",
                    text(column)
                );
                body("", right);
            }
            RewardFunc::NumericAnswer { column, tolerance, .. } => {
                let _ = write!(
                    out,
                    "def right_{name}(completion, answer):\n    got, want = last_number(said(completion)), last_number(answer)\n    \
                     return float(got is not None and abs(got - want) <= {tolerance:e} * max(abs(want), 1.0))\n\n\n"
                );
                let _ = writeln!(
                    out,
                    "def {name}(completions, **columns):\n    return [right_{name}(c, a) for c, a in zip(completions, columns[{}])]\n\n",
                    text(column)
                );
            }
            RewardFunc::Regex { pattern, .. } => {
                body("", format!("float(re.search({}, said(c)) is not None) for c in completions", text(pattern)));
            }
            RewardFunc::JsonSchema { schema, .. } => {
                let _ = write!(
                    out,
                    "def fits_{name}(text):\n    from jsonschema import ValidationError, validate\n\n    try:\n        \
                     validate(json.loads(text), json.loads({}))\n    except (ValueError, ValidationError):\n        return 0.0\n    return 1.0\n\n\n",
                    text(&schema.to_string())
                );
                let _ = writeln!(
                    out,
                    "def {name}(completions, **columns):\n    return [fits_{name}(said(c)) for c in completions]\n\n"
                );
            }
            RewardFunc::ThinkFormat { .. } => {
                let _ = writeln!(
                    out,
                    "def {name}(completions, **columns):\n    chats = [[{{\"content\": said(c)}}] for c in completions]\n    return think_format_reward(chats)\n\n"
                );
            }
            RewardFunc::SoftOverlongPunishment { max_completion_len, soft_punish_cache, .. } => {
                let _ = writeln!(
                    out,
                    "{name} = get_soft_overlong_punishment({max_completion_len}, {soft_punish_cache})\n\n"
                );
            }
            RewardFunc::RepetitionPenalty { ngram_size, max_penalty, .. } => {
                let _ = writeln!(out, "{name} = get_repetition_penalty_reward({ngram_size}, {max_penalty:?})\n\n");
            }
            RewardFunc::Program { command, .. } => {
                let command: Vec<String> = command.iter().map(|c| text(c)).collect();
                let class = format!("Program{}", i + 1);
                let definition =
                    PROGRAM.replace("NAME", &class).replace("COMMAND", &format!("[{}]", command.join(", ")));
                let _ = write!(out, "{definition}{name} = {class}()\n\n\n");
            }
        }
        names.push(name);
    }
    let _ = writeln!(out, "rewards = [{}]\n", names.join(", "));
}

/// The arguments that only GRPO has.
pub(super) fn arguments(put: &mut impl FnMut(&str, String), grpo: &GrpoSection) {
    let word = |v: Result<String, serde_json::Error>| v.unwrap_or_default();
    put("reward_weights", format!("{:?}", grpo.reward_funcs.iter().map(RewardFunc::weight).collect::<Vec<_>>()));
    put("num_generations", grpo.num_generations.to_string());
    // One look at each held-out prompt is ours; TRL needs a group.
    put("num_generations_eval", "1".into());
    put("max_completion_length", grpo.max_completion_length.to_string());
    put("temperature", format!("{:?}", grpo.temperature));
    put("top_p", format!("{:?}", grpo.top_p));
    put("top_k", grpo.top_k.to_string());
    put("beta", format!("{:?}", grpo.beta));
    put("loss_type", word(serde_json::to_string(&grpo.loss_type)));
    put("epsilon", format!("{:?}", grpo.epsilon));
    put("epsilon_high", format!("{:?}", grpo.epsilon_high()));
    put("importance_sampling_level", word(serde_json::to_string(&grpo.importance_sampling_level)));
    put("scale_rewards", word(serde_json::to_string(&grpo.scale_rewards)));
    put("num_iterations", grpo.num_iterations.to_string());
    let truth = |b: bool| if b { "True" } else { "False" }.to_string();
    put("mask_truncated_completions", truth(grpo.mask_truncated_completions));
    put("use_bias_correction_kl", truth(grpo.use_bias_correction_kl));
}

#[cfg(test)]
mod tests {
    use crate::recipe::parse;
    use crate::recipe::python::{Library, script};

    #[test]
    fn every_reward_function_has_its_like_in_python() {
        let text = r#"
method = "grpo"
[model]
name_or_path = "o/n"
[lora]
[data]
train = "/x/c.jsonl"
[grpo]
num_generations = 4
epsilon_high = 0.3
reward_funcs = [
    { name = "exact_answer", column = "solution", weight = 0.5 }, "numeric_answer", { name = "regex", pattern = "a\"b\\d" },
    "think_format", { name = "json_schema", schema = { type = "object" } },
    { name = "soft_overlong_punishment", max_completion_len = 20, soft_punish_cache = 5 }, "repetition_penalty",
    { name = "program", command = ["python3", "score.py"] },
]
"#;
        let r = parse(text, "r.toml", &[]).unwrap().recipe;
        let trl = script(&r, Library::Trl, "prompt", "r").unwrap();
        for words in [
            "from trl import GRPOConfig, GRPOTrainer",
            "columns[\"solution\"]",
            r#"re.search("a\"b\\d", said(c))"#,
            "get_soft_overlong_punishment(20, 5)",
            "get_repetition_penalty_reward(3, -1.0)",
            "subprocess.Popen([\"python3\", \"score.py\"]",
            "rewards = [exact_answer_1, numeric_answer_2, regex_3, think_format_4, json_schema_5, \
             soft_overlong_punishment_6, repetition_penalty_7, program_8]",
            "reward_weights=[0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]",
            "epsilon_high=0.3",
            "reward_funcs=rewards, peft_config=lora",
        ] {
            assert!(trl.contains(words), "{words}\n{trl}");
        }
        assert!(!trl.contains("max_length="), "{trl}");
        assert!(script(&r, Library::Unsloth, "prompt", "r").unwrap().contains("GRPOTrainer("));
    }
}
