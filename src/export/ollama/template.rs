//! A TEMPLATE for Ollama that renders chats as the model's own Jinja template does.
//!
//! It is not translated line by line: the Jinja template is asked how it writes each role, a Go template of that form
//! is put together, and then both render a set of chats. Only where every one of them is the same text is the TEMPLATE
//! given; else the reason is.

use super::go::GoTemplate;
use crate::data::template::ChatTemplate;
use crate::data::tokenizer::Tokenizer;
use crate::data::traits::Render;
use crate::{Error, Result};
use serde_json::{Value, json};

/// Texts that no template has.
const SYSTEM: &str = "sysTem0text";
const USER: &str = "useR1text";
const ANSWER: &str = "answeR2text";
const SECOND: &str = "useR3text";

/// A proven TEMPLATE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    pub text: String,
    /// Chats that it was proven with.
    pub chats: usize,
    /// Where the two differ all the same, in words: what Go's language cannot say.
    pub differs: Vec<&'static str>,
}

/// What stands around contents.
struct Form {
    /// Before everything, in a chat without a system prompt.
    head: String,
    system: System,
    user: (String, String),
    assistant: (String, String),
    /// Where the model speaks.
    generation: String,
}

enum System {
    /// A block of its own.
    Block(String, String),
    /// Before the first user's text, with this after it.
    InFirstUser(String),
}

fn message(role: &str, content: &str) -> Value {
    json!({"role": role, "content": content})
}

/// Make and prove a TEMPLATE for `jinja`, whose text is `source`. Where the tokenizer puts a BOS before every text by
/// itself, the TEMPLATE does not.
///
/// # Errors
/// Why there is none.
pub fn template(jinja: &ChatTemplate, source: &str, tokenizer: &Tokenizer) -> Result<Template> {
    let plain = tokenizer.encode_with_special("a")?.ids;
    let bos = match (&tokenizer.special.bos_token, tokenizer.bos_id()) {
        (Some(text), Some(id)) if plain.first() == Some(&id) => text.clone(),
        _ => String::new(),
    };
    if source.contains("strftime_now") {
        return Err(Error::new("the template writes the date of the day, which a TEMPLATE cannot"));
    }
    let mut form = form(jinja)?;
    let stripped = |text: &str| {
        let rest = text.strip_prefix(&bos).map(str::to_string);
        rest.ok_or_else(|| Error::new("the tokenizer puts a BOS before a chat, and the template has none"))
    };
    form.head = stripped(&form.head)?;
    if let System::Block(before, _) = &mut form.system {
        *before = stripped(before)?;
    }
    let text = write(&form)?;
    let go = GoTemplate::new(&text)?;
    let mut chats = 0;
    for chat in proofs() {
        let expected = match jinja.render(&chat, None, true) {
            Ok(text) => text,
            // A chat that the model's own template refuses needs no rendering.
            Err(_) => continue,
        };
        let found = format!("{bos}{}", go.render_chat(&chat)?);
        if found != expected {
            return Err(Error::new(format!("it renders otherwise: {}", parting(&expected, &found))));
        }
        chats += 1;
    }
    let mut differs = Vec::new();
    for (chat, what) in caveats() {
        if jinja
            .render(&chat, None, true)
            .is_ok_and(|expected| go.render_chat(&chat).map(|found| format!("{bos}{found}")).ok() != Some(expected))
        {
            differs.push(what);
        }
    }
    Ok(Template { text, chats, differs })
}

/// Chats in which contents decide how they are written, with what that is called.
fn caveats() -> [(Vec<Value>, &'static str); 2] {
    let thought = "<think>\nHm.\n</think>\n\nTwo";
    [
        (vec![message("user", " spaced\n")], "white space around a message is trimmed in training, and not here"),
        (
            vec![message("user", "One"), message("assistant", thought), message("user", "Three")],
            "thoughts (<think>) of earlier answers are dropped in training, and not here",
        ),
    ]
}

/// The chats that both must render alike.
fn proofs() -> Vec<Vec<Value>> {
    let (s, u, a) = (|t| message("system", t), |t| message("user", t), |t| message("assistant", t));
    vec![
        vec![u("Hello.")],
        vec![s("Be brief."), u("Hello.")],
        vec![u("One"), a("Two"), u("Three")],
        vec![s("Be brief.\nAnswer in French."), u("One"), a("Two"), u("Three"), a("Four"), u("Five")],
        vec![u("Line one\nline two\n\n{\"a\": [1, {{2}}]} <b>&amp;</b> \"quoted\" 'single' \\n")],
        vec![s("You see {{ .System }} and {% if %}."), u("Ünïcode 北京 🙂"), a("```python\nprint(1)\n```"), u("x")],
        vec![u("12"), a("{\"tool\":\"timer\",\"minutes\":12}"), u("And now?"), a("Done."), u("Thanks")],
        vec![s("A"), u("B"), a("C"), u("D"), a("E"), u("F"), a("G"), u("H")],
    ]
}

/// The first place where two texts part.
fn parting(expected: &str, found: &str) -> String {
    let at = expected.char_indices().zip(found.chars()).find(|((_, a), b)| a != b).map(|((at, _), _)| at);
    let at = at.unwrap_or(expected.len().min(found.len()));
    let show = |text: &str| text.get(at..).map(|t| t.chars().take(24).collect::<String>()).unwrap_or_default();
    format!("{:?} where Jinja has {:?}", show(found), show(expected))
}

/// What the template writes around contents, from how it renders a few chats.
fn form(jinja: &ChatTemplate) -> Result<Form> {
    let (s, u, a, v) =
        (message("system", SYSTEM), message("user", USER), message("assistant", ANSWER), message("user", SECOND));
    let strange = |what: &str| Error::new(format!("the template is of another form: {what}"));
    let render = |chat: &[&Value], speak: bool| {
        let chat: Vec<Value> = chat.iter().map(|m| (*m).clone()).collect();
        jinja.render(&chat, None, speak)
    };
    let around = |text: &str, what: &str| {
        let (before, after) = text.split_once(what).ok_or_else(|| strange("a message is left out"))?;
        match after.contains(what) {
            false => Ok((before.to_string(), after.to_string())),
            true => Err(strange("a message comes twice")),
        }
    };
    let one = render(&[&u], false)?;
    let generation = render(&[&u], true)?;
    let generation = generation.strip_prefix(&one).ok_or_else(|| strange("its generation prompt is not at the end"))?;
    // head user | USER | user assistant | ANSWER | assistant user | SECOND | user
    let (head, rest) = around(&render(&[&u, &a, &v], false)?, USER)?;
    let (to_answer, rest) = around(&rest, ANSWER)?;
    let (to_second, user_after) = around(&rest, SECOND)?;
    if around(&one, USER)? != (head.clone(), user_after.clone()) {
        return Err(strange("a turn looks otherwise when others follow"));
    }
    let assistant_before = to_answer.strip_prefix(&user_after).ok_or_else(|| strange("what ends a user's turn"))?;
    // What a last answer is followed by tells where its turn ends and the user's begins.
    let (_, after_last) = around(&render(&[&u, &a], false)?, ANSWER)?;
    let user_before = to_second.strip_prefix(&after_last).ok_or_else(|| strange("what ends an answer"))?;
    let head = head.strip_suffix(user_before).ok_or_else(|| strange("how the first turn begins"))?;
    let with_system = render(&[&s, &u], false)?;
    let (system_before, rest) = around(&with_system, SYSTEM)?;
    let (between, after) = around(&rest, USER)?;
    if after != user_after {
        return Err(strange("a turn looks otherwise after a system prompt"));
    }
    let system = match between.strip_suffix(user_before) {
        // A system prompt takes the place of the head's own; what both begin with stays.
        Some(system_after) if !user_before.is_empty() => System::Block(system_before, system_after.to_string()),
        _ => match system_before.strip_suffix(user_before) {
            Some(same) if same == head => System::InFirstUser(between),
            _ => return Err(strange("where a system prompt goes")),
        },
    };
    Ok(Form {
        head: head.to_string(),
        system,
        user: (user_before.to_string(), user_after),
        assistant: (assistant_before.to_string(), after_last),
        generation: generation.to_string(),
    })
}

/// The Go template of a form. `form.head` is without what the tokenizer adds by itself.
fn write(form: &Form) -> Result<String> {
    let mut out = String::new();
    let mut user_extra = String::new();
    let mut system_block = String::new();
    match &form.system {
        System::InFirstUser(after) => {
            out.push_str(&form.head);
            user_extra = format!("{{{{ if and $.System (le $i 1) }}}}{{{{ $.System }}}}{after}{{{{ end }}}}");
        }
        System::Block(before, after) => {
            // What a chat begins with either way, or what it has only without a system prompt.
            let before = match before.strip_prefix(&form.head) {
                Some(rest) => {
                    out.push_str(&form.head);
                    rest
                }
                None => {
                    out += &format!("{{{{ if not .System }}}}{}{{{{ end }}}}", form.head);
                    before
                }
            };
            system_block =
                format!("{{{{ if eq $m.Role \"system\" }}}}{before}{{{{ $m.Content }}}}{after}{{{{ else if ");
        }
    }
    out += "{{ range $i, $m := .Messages }}";
    out += if system_block.is_empty() { "{{ if " } else { &system_block };
    out += &format!("eq $m.Role \"user\" }}}}{}{user_extra}{{{{ $m.Content }}}}{}", form.user.0, form.user.1);
    out += &format!(
        "{{{{ else if eq $m.Role \"assistant\" }}}}{}{{{{ $m.Content }}}}{}",
        form.assistant.0, form.assistant.1
    );
    out += "{{ end }}{{ end }}";
    out += &form.generation;
    let literal = [&form.head, &form.user.0, &form.user.1, &form.assistant.0, &form.assistant.1, &form.generation];
    match literal.iter().any(|t| t.contains("{{") || t.contains("\"\"\"")) {
        true => Err(Error::new("the template writes {{ or three quotation marks itself")),
        false => Ok(out),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::template::{NAMES, named};
    use crate::data::tokenizer::Templates;
    use crate::model::files::Files;
    use crate::model::hf::HfModel;
    use crate::model::loading::Opened;
    use std::path::Path;

    fn tokenizer() -> Tokenizer {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiny-llama");
        Tokenizer::of(&Opened::Hf(Box::new(HfModel::open(Files::Folder(dir)).unwrap()))).unwrap().0
    }

    fn made(source: &str) -> Result<Template> {
        let tokenizer = tokenizer();
        let templates = Templates { default: Some(source.to_string()), tool_use: None };
        let jinja = ChatTemplate::new(&templates, &tokenizer.special, &serde_json::Map::new())?;
        template(&jinja, source, &tokenizer)
    }

    #[test]
    fn the_built_in_families_are_proven_or_refused_with_the_reason() {
        let mut proven = Vec::new();
        for name in NAMES {
            match made(named(name).unwrap()) {
                Ok(t) => {
                    assert!(t.chats >= 4, "{name}: {}", t.chats);
                    proven.push(*name);
                }
                Err(e) => assert!(e.to_string().len() > 10, "{name}"),
            }
        }
        for name in ["chatml", "llama-3", "gemma"] {
            assert!(proven.contains(&name), "{name}: {:?}", made(named(name).unwrap()));
        }
    }

    #[test]
    fn a_default_system_prompt_stands_only_where_the_chat_has_none() {
        let source = "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou are a bird<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";
        let t = made(source).unwrap();
        assert_eq!(t.chats, 8);
        assert!(t.text.contains("{{ if not .System }}"), "{}", t.text);
        let go = GoTemplate::new(&t.text).unwrap();
        assert!(go.render_chat(&[message("user", "x")]).unwrap().contains("a bird"));
        assert!(!go.render_chat(&[message("system", "s"), message("user", "x")]).unwrap().contains("a bird"));
    }

    #[test]
    fn a_template_that_looks_at_contents_or_positions_is_refused_not_guessed() {
        for source in [
            // Only the last turn is marked.
            "{% for m in messages %}{% if loop.last %}LAST {% endif %}[{{ m.role }}]{{ m.content }}{% endfor %}>",
            // Contents decide.
            "{% for m in messages %}[{{ m.role }}]{{ 'long ' if m.content | length > 12 }}{{ m.content }}\n{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}",
            // A message is dropped.
            "{{ messages[-1].content }}",
            // Upper case is not what was said.
            "{% for m in messages %}[{{ m.role }}]{{ m.content | upper }}\n{% endfor %}",
            "{{ raise_exception('no') }}",
            "{{ strftime_now('%d') }}{% for m in messages %}[{{ m.role }}]{{ m.content }}\n{% endfor %}[assistant]",
        ] {
            let refused = made(source);
            assert!(refused.is_err(), "{source}: {refused:?}");
        }
    }

    #[test]
    fn real_templates_are_proven_or_refused() {
        let Some(dir) = crate::data::assets::asset("templates") else { return };
        let (mut proven, mut refused) = (0, 0);
        let mut names: Vec<_> = std::fs::read_dir(dir).unwrap().flatten().map(|e| e.path()).collect();
        names.sort();
        for path in names.iter().filter(|p| p.extension().is_some_and(|e| e == "jinja")) {
            match made(&std::fs::read_to_string(path).unwrap()) {
                Ok(_) => proven += 1,
                Err(e) => {
                    refused += 1;
                    println!(
                        "{}: {}",
                        path.file_name().unwrap().to_string_lossy(),
                        e.to_string().lines().next().unwrap()
                    );
                }
            }
        }
        println!("{proven} proven, {refused} refused");
        assert!(proven >= 40, "{proven}");
    }
}
