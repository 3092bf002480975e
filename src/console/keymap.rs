//! The one table of keys: dispatch, the help page, the footer and the palette all read it.
//!
//! A key is looked up in the contexts that hold now, the innermost first, so that a pane may give a key
//! a meaning of its own. While text is typed the table is not asked at all (see [`super::update`]).

use super::key::Key;
use super::model::{Model, Page};
use super::run_page::Pane;

/// Where a binding holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Context {
    Any,
    Start,
    Run,
    Loss,
    Samples,
    Memory,
    Recipe,
    Diagnostics,
    Export,
    /// Help, log and rows: pages that scroll.
    Pager,
}

impl Context {
    pub const ALL: [Context; 10] = [
        Context::Any,
        Context::Start,
        Context::Run,
        Context::Loss,
        Context::Samples,
        Context::Memory,
        Context::Recipe,
        Context::Diagnostics,
        Context::Export,
        Context::Pager,
    ];

    /// Its name in `keys.toml`.
    pub fn word(self) -> &'static str {
        match self {
            Context::Any => "any",
            Context::Start => "start",
            Context::Run => "run",
            Context::Loss => "loss",
            Context::Samples => "samples",
            Context::Memory => "memory",
            Context::Recipe => "recipe",
            Context::Diagnostics => "diagnostics",
            Context::Export => "export",
            Context::Pager => "pager",
        }
    }

    /// The heading in the help page.
    pub fn title(self) -> &'static str {
        match self {
            Context::Any => "everywhere",
            Context::Start => "start page",
            Context::Run => "run",
            Context::Loss => "loss pane",
            Context::Samples => "samples pane",
            Context::Memory => "memory pane",
            Context::Recipe => "recipe pane",
            Context::Diagnostics => "diagnostics pane",
            Context::Export => "export page",
            Context::Pager => "pages that scroll",
        }
    }
}

/// What a key does. The name in [`TABLE`] is what the palette and `keys.toml` call it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    Palette,
    Keys,
    Leave,
    Back,
    Interrupt,
    Suspend,
    PaneLoss,
    PaneSamples,
    PaneMemory,
    PaneRecipe,
    PaneDiagnostics,
    NextPane,
    PreviousPane,
    Zoom,
    Up,
    Down,
    Left,
    Right,
    PageUp,
    PageDown,
    First,
    Last,
    ZoomIn,
    ZoomOut,
    ZoomAll,
    LogY,
    AxisX,
    Metric,
    Open,
    Fix,
    Edit,
    Undo,
    Editor,
    Diff,
    TemperatureDown,
    TemperatureUp,
    RepetitionDown,
    RepetitionUp,
    TopPDown,
    TopPUp,
    SampleNow,
    OwnPrompt,
    PauseOrResume,
    Checkpoint,
    Evaluate,
    Stop,
    Branch,
    RowsOfStep,
    Log,
    Copy,
    New,
    Mark,
    Search,
    Sort,
    ResumeRun,
    Delete,
    ExportRun,
    CompareBase,
}

/// One line of the table.
#[derive(Debug, Clone)]
pub struct Binding {
    pub keys: Vec<Key>,
    pub context: Context,
    pub action: Action,
    /// One or two words, as the palette and `keys.toml` name it.
    pub name: &'static str,
    /// One line for the help page.
    pub help: &'static str,
    /// The word in the footer; empty: not there. Neighbours with the same word share one entry (`←→ cursor`).
    pub footer: &'static str,
}

type Row = (&'static str, Context, Action, &'static str, &'static str, &'static str);

/// keys (separated by spaces), context, action, name, help, footer word.
/// Within a context, the order is the footer's and the help page's.
#[rustfmt::skip]
const TABLE: &[Row] = {
    use Action::*;
    use Context::*;
    &[
        (":",         Any,     Palette,         "commands",         "find a command by name",                                  ""),
        ("?",         Any,     Keys,            "keys",             "this page",                                               ""),
        ("q",         Any,     Leave,           "leave",            "leave; a run goes on without a viewer",                   ""),
        ("esc",       Any,     Back,            "back",             "one level back; never quits",                             ""),
        ("ctrl-c",    Any,     Interrupt,       "interrupt",        "says how to leave and how to stop",                       ""),
        ("ctrl-z",    Any,     Suspend,         "suspend",          "to the shell; fg comes back",                             ""),

        ("enter",     Start,   Open,            "open",             "open the run, recipe or demo",                            "open"),
        ("n",         Start,   New,             "new",              "new run: a recipe for your rows",                         "new"),
        ("R",         Start,   ResumeRun,       "resume run",       "resume from the last checkpoint (asks)",                  "resume"),
        ("e",         Start,   ExportRun,       "export",           "write the run's model for others to use",                 "export"),
        ("D",         Start,   Delete,          "delete",           "delete the run's folder (asks)",                          "delete"),
        ("/",         Start,   Search,          "search",           "search the runs",                                         "search"),
        ("space",     Start,   Mark,            "mark",             "mark a run: delete takes all that are marked",            "mark"),
        ("s",         Start,   Sort,            "sort",             "sort by newest, name, best eval, state",                  ""),
        ("left h",    Start,   Left,            "previous",         "previous run or recipe",                                  ""),
        ("right l",   Start,   Right,           "next",             "next run or recipe",                                      ""),
        ("pgup",      Start,   PageUp,          "ten up",           "ten up",                                                  ""),
        ("pgdn",      Start,   PageDown,        "ten down",         "ten down",                                                ""),
        ("L",         Start,   Log,             "log",              "the run's log",                                           ""),
        ("up k",      Start,   Up,              "up",               "up",                                                      ""),
        ("down j",    Start,   Down,            "down",             "down",                                                    ""),
        ("g home",    Start,   First,           "first",            "first",                                                   ""),
        ("G end",     Start,   Last,            "last",             "last",                                                    ""),

        ("left h",    Loss,    Left,            "cursor left",      "move the cursor to an earlier step",                      "cursor"),
        ("right l",   Loss,    Right,           "cursor right",     "move the cursor to a later step",                         "cursor"),
        ("y",         Loss,    LogY,            "log y",            "y axis linear or logarithmic",                            "log"),
        ("x",         Loss,    AxisX,           "x axis",           "x axis: step, epoch, tokens, time",                       "axis"),
        ("m",         Loss,    Metric,          "metric",           "next metric in the large chart",                          "metric"),
        ("+ =",       Loss,    ZoomIn,          "zoom in",          "zoom in around the cursor",                               ""),
        ("-",         Loss,    ZoomOut,         "zoom out",         "zoom out",                                                ""),
        ("0",         Loss,    ZoomAll,         "zoom all",         "the whole run",                                           ""),
        ("g home",    Loss,    First,           "first step",       "cursor to the first step",                                ""),
        ("G end",     Loss,    Last,            "newest step",      "no cursor: follow the newest step",                       ""),
        ("up",        Loss,    Up,              "mark sparkline",   "mark the sparkline above",                                ""),
        ("down j",    Loss,    Down,            "mark next line",   "mark the sparkline below",                                ""),
        ("enter",     Loss,    Open,            "promote",          "the marked sparkline becomes the large chart",            ""),
        ("k",         Loss,    RowsOfStep,      "rows",             "rows and tokens of this step",                            ""),

        ("left h",    Samples, Left,            "earlier sample",   "compare with an earlier step",                            "step"),
        ("right l",   Samples, Right,           "later sample",     "compare with a later step",                               "step"),
        ("s",         Samples, SampleNow,       "sample",           "draw samples now with these settings",                    "sample"),
        ("p",         Samples, OwnPrompt,       "prompt",           "a prompt of your own",                                    "prompt"),
        ("t",         Samples, TemperatureDown, "temperature down", "temperature down by 0.1",                                 "temp"),
        ("T",         Samples, TemperatureUp,   "temperature up",   "temperature up by 0.1",                                   "temp"),
        ("o",         Samples, TopPDown,        "top_p down",       "top_p down by 0.05",                                      "top_p"),
        ("O",         Samples, TopPUp,          "top_p up",         "top_p up by 0.05",                                        "top_p"),
        ("r",         Samples, RepetitionDown,  "repetition down",  "repetition_penalty down by 0.05",                         "rep"),
        ("R",         Samples, RepetitionUp,    "repetition up",    "repetition_penalty up by 0.05",                           "rep"),
        ("up k",      Samples, Up,              "previous prompt",  "scroll up one prompt",                                    ""),
        ("down j",    Samples, Down,            "next prompt",      "scroll down one prompt",                                  ""),
        ("g home",    Samples, First,           "first sample",     "the first sample",                                        ""),
        ("G end",     Samples, Last,            "newest sample",    "follow the newest sample",                                ""),

        ("i enter",   Recipe,  Edit,            "edit",             "edit this field; enter applies, esc drops",               "edit"),
        ("u",         Recipe,  Undo,            "undo",             "undo the last edit",                                      "undo"),
        ("d",         Recipe,  Diff,            "diff",             "what differs from the recipe as it was",                  "diff"),
        ("v",         Recipe,  Editor,          "editor",           "the recipe's file in $VISUAL or $EDITOR, before a run",   ""),
        ("up k",      Recipe,  Up,              "field up",         "field above",                                             "field"),
        ("down j",    Recipe,  Down,            "field down",       "field below",                                             "field"),
        ("g home",    Recipe,  First,           "first field",      "first field",                                             ""),
        ("G end",     Recipe,  Last,            "last field",       "last field",                                              ""),

        ("a",         Diagnostics, Fix,         "fix",              "apply the fix (asks where it cannot be undone)",          "apply fix"),
        ("enter",     Diagnostics, Open,        "why",              "the whole finding, and where its rule comes from",        "why"),
        ("up k",      Diagnostics, Up,          "finding up",       "finding above",                                           "finding"),
        ("down j",    Diagnostics, Down,        "finding down",     "finding below",                                           "finding"),

        ("tab",       Run,     NextPane,        "next pane",        "next pane",                                               "pane"),
        ("s-tab",     Run,     PreviousPane,    "previous pane",    "previous pane",                                           ""),
        ("1",         Run,     PaneLoss,        "loss",             "pane 1, loss",                                            ""),
        ("2",         Run,     PaneSamples,     "samples",          "pane 2, samples",                                         ""),
        ("3",         Run,     PaneMemory,      "memory",           "pane 3, memory",                                          ""),
        ("4",         Run,     PaneRecipe,      "recipe",           "pane 4, recipe",                                          ""),
        ("5",         Run,     PaneDiagnostics, "diagnostics",      "pane 5, diagnostics",                                     ""),
        ("z",         Run,     Zoom,            "zoom",             "this pane alone, and back",                               "zoom"),
        ("space",     Run,     PauseOrResume,   "pause",            "pause, go on; before a run: start it",                    ""),
        ("C",         Run,     Checkpoint,      "checkpoint",       "write a checkpoint now",                                  ""),
        ("E",         Run,     Evaluate,        "evaluate",         "evaluate now",                                            ""),
        ("S",         Run,     Stop,            "stop",             "end the run with a checkpoint (asks)",                    ""),
        ("s",         Run,     SampleNow,       "sample",           "draw samples now",                                        ""),
        ("p",         Run,     OwnPrompt,       "prompt",           "a prompt of your own; a chat once the run has ended",                                    ""),
        ("a",         Run,     Fix,             "fix",              "apply the worst finding's fix",                           ""),
        ("e",         Run,     ExportRun,       "export",           "write the model for others to use: GGUF, merged, Ollama", ""),
        ("c",         Run,     CompareBase,     "compare",          "talk to it beside its base, once it has ended",           ""),
        ("b",         Run,     Branch,          "branch",           "another run from the checkpoint before the cursor (asks)", ""),
        ("L",         Run,     Log,             "log",              "the run's log",                                           ""),
        ("Y",         Run,     Copy,            "copy",             "copy this pane as text",                                  ""),

        ("space",     Export,  Mark,            "choose",           "choose this, or not",                                     "choose"),
        ("enter",     Export,  Open,            "write",            "write what is chosen, and prove it",                      "write"),
        ("i",         Export,  Edit,            "name",             "the model's name",                                        "name"),
        ("Y",         Export,  Copy,            "copy command",     "copy the line that serves it",                            "copy"),
        ("up k",      Export,  Up,              "up",               "up",                                                      ""),
        ("down j",    Export,  Down,            "down",             "down",                                                    ""),
        ("pgup",      Export,  PageUp,          "page up",          "page up",                                                 ""),
        ("pgdn",      Export,  PageDown,        "page down",        "page down",                                               ""),
        ("g home",    Export,  First,           "first",            "first",                                                   ""),
        ("G end",     Export,  Last,            "last",             "last",                                                    ""),

        ("up k",      Pager,   Up,              "line up",          "line up",                                                 "scroll"),
        ("down j",    Pager,   Down,            "line down",        "line down",                                               "scroll"),
        ("pgup",      Pager,   PageUp,          "page up",          "page up",                                                 ""),
        ("pgdn space", Pager,  PageDown,        "page down",        "page down",                                               ""),
        ("g home",    Pager,   First,           "top",              "to the top",                                              ""),
        ("G end",     Pager,   Last,            "bottom",           "to the bottom",                                           ""),
    ]
};

/// The bindings that hold: the table, with a user's own keys in place.
#[derive(Debug, Clone)]
pub struct Keymap {
    pub bindings: Vec<Binding>,
}

impl Default for Keymap {
    fn default() -> Self {
        let bindings = TABLE.iter().map(|&(keys, context, action, name, help, footer)| Binding {
            keys: keys.split(' ').filter_map(Key::parse).collect(),
            context,
            action,
            name,
            help,
            footer,
        });
        Self { bindings: bindings.collect() }
    }
}

impl Keymap {
    /// What `key` does in the innermost of `contexts` that knows it.
    pub fn action(&self, key: Key, contexts: &[Context]) -> Option<Action> {
        contexts
            .iter()
            .find_map(|&c| self.bindings.iter().find(|b| b.context == c && b.keys.contains(&key)).map(|b| b.action))
    }

    /// The key that does `action`, as a text names it; `:` and the command's name where a person took its key away.
    pub fn key(&self, action: Action) -> String {
        let of = || self.bindings.iter().filter(move |b| b.action == action);
        of().find_map(|b| b.keys.first())
            .map(ToString::to_string)
            .or_else(|| of().next().map(|b| format!(":{}", b.name)))
            .unwrap_or_default()
    }

    /// The bindings of a context, in the table's order.
    pub fn of(&self, context: Context) -> impl Iterator<Item = &Binding> {
        self.bindings.iter().filter(move |b| b.context == context)
    }

    /// Footer entries of a context: keys and word. Neighbours with the same word are one entry.
    pub fn footer(&self, context: Context) -> Vec<(String, &'static str)> {
        let mut out: Vec<(String, &'static str)> = Vec::new();
        for b in self.of(context).filter(|b| !b.footer.is_empty()) {
            let Some(key) = b.keys.first() else { continue };
            match out.last_mut() {
                Some((keys, word)) if *word == b.footer => keys.push_str(&key.to_string()),
                _ => out.push((key.to_string(), b.footer)),
            }
        }
        out
    }
}

/// The contexts that hold now, innermost first.
pub fn contexts(m: &Model) -> Vec<Context> {
    contexts_of(m, m.page())
}

/// The contexts that hold while `page` is on top, innermost first.
pub fn contexts_of(m: &Model, page: Page) -> Vec<Context> {
    match page {
        Page::Start => vec![Context::Start, Context::Any],
        Page::Run => {
            let pane = match m.run.as_ref().map_or(Pane::Loss, |r| r.focus) {
                Pane::Loss => Context::Loss,
                Pane::Samples => Context::Samples,
                Pane::Memory => Context::Memory,
                Pane::Recipe => Context::Recipe,
                Pane::Diagnostics => Context::Diagnostics,
            };
            vec![pane, Context::Run, Context::Any]
        }
        Page::Palette | Page::New | Page::Chat => vec![],
        Page::Export => vec![Context::Export, Context::Any],
        Page::Help | Page::Log | Page::Rows => vec![Context::Pager, Context::Any],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_in_the_table_is_spelled_right() {
        for (row, binding) in TABLE.iter().zip(Keymap::default().bindings) {
            assert_eq!(binding.keys.len(), row.0.split(' ').count(), "{}", row.0);
        }
    }

    #[test]
    fn no_key_means_two_things_in_one_context() {
        let map = Keymap::default();
        for (i, a) in map.bindings.iter().enumerate() {
            for b in &map.bindings[i + 1..] {
                let shared = a.context == b.context && a.keys.iter().any(|k| b.keys.contains(k));
                assert!(!shared, "{} and {} share a key in {:?}", a.name, b.name, a.context);
            }
        }
    }
}
