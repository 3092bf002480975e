//! Group relative policy optimization (Shao et al., 2024): the loop, top to bottom. Names and numbers are those of TRL's
//! `GRPOTrainer`.
//!
//! A step draws `num_generations` completions of each of its prompts, lets the reward functions score them, and trains on
//! what each is worth beside its group. `per_device_train_batch_size` counts completions. With `num_iterations` above 1
//! the same completions serve several steps; a checkpoint between them holds them.

use super::event::{Body, Completions, Metrics, SampleSettings, Scored};
use super::outlet::Outlet;
use super::parts::course::{Counts, Course, Evaluation, Method};
use super::parts::ending::Ending;
use super::parts::policy_loss::{self as loss, Rollout, Scale, advantages, deviation, mean};
use super::parts::reference::Reference;
use super::parts::rewards::{Answer, Rewards};
use super::parts::rollout::{self, Drawn};
use super::parts::rollouts::{Completion, Rollouts};
use super::setup::Prepared;
use super::speaker::Speaker;
use crate::data::batch::{Batch, Example};
use crate::data::prompt::Prompt;
use crate::model::engine::{Engine, Voice, Weighed};
use crate::model::llama::{Pass, Weighted};
use crate::recipe::{GrpoSection, Recipe};
use crate::{Error, Result};
use serde_json::Value;
use std::path::Path;
use std::time::Instant;

/// Train to the end, a stop, or an error; from the checkpoint in `resume` where there is one.
pub fn train(recipe: &Recipe, prepared: Prepared, outlet: &mut dyn Outlet, resume: Option<&Path>) -> Result<Ending> {
    let policy = Policy::new(recipe, &prepared)?;
    let mut run = Course::new(recipe, prepared, policy, outlet, resume)?;
    let ending = go(&mut run)?;
    run.finish(ending)
}

/// What looks at held-out rows, for a model as it is before the first step.
pub fn evaluator(recipe: &Recipe, prepared: &Prepared) -> Result<Box<dyn Method>> {
    Ok(Box::new(Policy::new(recipe, prepared)?))
}

fn go(run: &mut Course<Policy>) -> Result<Ending> {
    run.first()?;
    loop {
        if let Some(ending) = run.obey()? {
            return Ok(ending);
        }

        // Completions of the step's prompts, drawn and scored; or those of the steps before, for another iteration.
        let (started, step) = (Instant::now(), run.progress.step);
        let grpo = run.method.grpo.clone();
        if run.method.rollouts.is_none() || step.is_multiple_of(grpo.num_iterations) {
            let prompts = run.prepared.plan.micro_batches(step).concat();
            let go_on = &mut || run.orders.urgent().is_none();
            let Some((rollouts, shown)) = run.method.draw(&mut run.prepared, &run.recipe, &prompts, step, go_on)?
            else {
                continue;
            };
            run.method.rollouts = Some(rollouts);
            run.orders.emit(step + 1, Body::Completions(shown))?;
        }
        let Some(rollouts) = &run.method.rollouts else { continue };

        // Forward, the completions' losses, and backward, over each micro-batch.
        let (seed, checkpointing) = (run.recipe.train.seed, run.prepared.checkpointing);
        let (model, data) = (&mut run.prepared.speaker.model, &run.prepared.data.train);
        let micro_batches: Vec<&[Completion]> =
            rollouts.completions.chunks(run.recipe.train.per_device_train_batch_size).collect();
        let mut tally = Tally::default();
        let (mut tokens, mut label_tokens) = (0, 0);
        model.zero_grad()?;
        for (micro, completions) in micro_batches.iter().enumerate() {
            let batch = laid(data, completions);
            let scale = Scale {
                completions: completions.len(),
                tokens: completions.iter().map(Completion::trained).sum(),
                step_tokens: rollouts.completions.iter().map(Completion::trained).sum(),
                micro_batches: micro_batches.len(),
                max_completion_length: grpo.max_completion_length,
            };
            let pass = Pass { seed, step, micro: micro as u64, checkpointing };
            model.weighted_backward(&batch, of(&grpo, true), &pass, &mut |said| {
                let mut weighed = Weighed::default();
                let mut rest = said.labels.as_slice();
                for c in completions.iter().filter(|c| c.trained() > 0) {
                    let (now, after) = rest.split_at(c.trained());
                    rest = after;
                    let rollout = Rollout { now, old: &c.old, reference: &c.reference, advantage: c.advantage };
                    let lost = loss::loss(&rollout, &grpo, &scale);
                    tally.add(&lost);
                    weighed.loss += lost.loss;
                    weighed.weights.extend(lost.weights);
                }
                tally.entropy += said.entropies.iter().map(|&e| f64::from(e)).sum::<f64>();
                tally.tokens += said.entropies.len() as f64;
                Ok(weighed)
            })?;
            tokens += batch.ids.len() as u64;
            label_tokens += batch.label_tokens();
            if let Some(ending) = run.orders.urgent() {
                return Ok(ending);
            }
        }

        // Clip and step, log, and what is due.
        let mut metrics = rollouts.metrics.clone();
        metrics.extend(tally.metrics(grpo.beta > 0.0));
        let rows = rollouts.completions.chunks(grpo.num_generations).map(|group| data[group[0].example].row).collect();
        let done = run.optimize()?;
        run.log(&done, Counts { tokens, label_tokens, rows }, metrics, started)?;
        if let Some(ending) = run.due()? {
            return Ok(ending);
        }
    }
}

/// Log-probabilities at the temperature that completions are drawn at.
fn of(grpo: &GrpoSection, entropies: bool) -> Weighted {
    Weighted { temperature: grpo.temperature, entropies }
}

/// The reward functions, the reference, and the completions in use.
struct Policy {
    grpo: GrpoSection,
    rewards: Rewards,
    /// None where `beta` is 0.
    reference: Option<Reference>,
    /// By row: of the training rows, and of `data.eval` where it has rows of its own.
    prompts: Vec<Option<Prompt>>,
    eval_prompts: Option<Vec<Option<Prompt>>>,
    rollouts: Option<Rollouts>,
}

impl Policy {
    fn new(recipe: &Recipe, prepared: &Prepared) -> Result<Self> {
        let grpo = recipe.grpo.clone().ok_or_else(|| Error::usage("a recipe of method grpo has a [grpo] table"))?;
        let read = |all: &[String]| all.iter().map(|c| serde_json::from_str(c).ok()).collect::<Vec<Option<Prompt>>>();
        let data = &prepared.data;
        let reference = (grpo.beta > 0.0).then(|| Reference::of(recipe, &prepared.speaker.model)).transpose()?;
        Ok(Self {
            rewards: Rewards::new(&grpo.reward_funcs)?,
            grpo,
            reference,
            prompts: read(&data.columns),
            eval_prompts: data.eval_columns.as_deref().map(read),
            rollouts: None,
        })
    }

    fn settings(&self, recipe: &Recipe) -> SampleSettings {
        let g = &self.grpo;
        SampleSettings {
            temperature: g.temperature,
            top_p: g.top_p,
            top_k: g.top_k,
            min_p: 0.0,
            repetition_penalty: 1.0,
            max_new_tokens: g.max_completion_length as u32,
            seed: recipe.train.seed,
        }
    }

    /// Draw and score the completions of `examples` (prompts), and ask the policy and the reference about them. The first
    /// prompt's are shown. `None` where `go_on` said no.
    fn draw(
        &mut self,
        prepared: &mut Prepared,
        recipe: &Recipe,
        examples: &[usize],
        step: u64,
        go_on: &mut dyn FnMut() -> bool,
    ) -> Result<Option<(Rollouts, Completions)>> {
        let (group, data) = (self.grpo.num_generations, &prepared.data.train);
        let speaker = &mut prepared.speaker;
        let prompts: Vec<&[u32]> = examples.iter().map(|&i| &data[i].ids[..]).collect();
        let settings = self.settings(recipe);
        let drawn = rollout::draw(&speaker.model, &prompts, group, &settings, &speaker.stop_ids, step, go_on)?;
        let Some(drawn) = drawn else { return Ok(None) };
        let texts = texts(speaker, &drawn)?;
        let of_row = |row: u32| self.prompts.get(row as usize).and_then(Option::as_ref);
        let asked: Vec<&Prompt> =
            drawn_for(examples, group).map(|i| of_row(data[i].row)).collect::<Option<_>>().ok_or_else(lost)?;
        let scores = score(&mut self.rewards, &asked, &drawn, &texts)?;
        let totals: Vec<f64> = scores.iter().map(|s| self.rewards.total(s)).collect();
        let worth = advantages(&totals, group, self.grpo.scale_rewards);

        let mut metrics = reward_metrics(&self.rewards, &scores, &totals);
        metrics.insert("frac_reward_zero_std".into(), worth.zero_std);
        metrics.extend(length_metrics(&drawn));
        let shown = shown(
            &self.rewards,
            asked[0],
            data[examples[0]].row,
            &drawn[..group],
            &texts,
            &scores,
            &totals,
            &worth.values,
        );

        let masks = self.grpo.mask_truncated_completions;
        let completions = drawn_for(examples, group).zip(drawn).zip(worth.values).map(|((example, d), advantage)| {
            let masked = masks && d.truncated;
            Completion { example, ids: d.ids, masked, advantage, old: Vec::new(), reference: Vec::new() }
        });
        let mut rollouts = Rollouts { completions: completions.collect(), metrics };
        let size = recipe.train.per_device_train_batch_size;
        if self.grpo.num_iterations > 1 {
            for (c, said) in asked_of(&mut speaker.model, None, &rollouts, data, size, &self.grpo)? {
                rollouts.completions[c].old = said;
            }
        }
        if let Some(reference) = &self.reference {
            for (c, said) in asked_of(&mut speaker.model, Some(reference), &rollouts, data, size, &self.grpo)? {
                rollouts.completions[c].reference = said;
            }
        }
        Ok(Some((rollouts, shown)))
    }
}

impl Method for Policy {
    /// One completion of each held-out prompt, the likeliest tokens all along: the same at every look but for the model.
    fn evaluate(
        &mut self,
        prepared: &mut Prepared,
        recipe: &Recipe,
        go_on: &mut dyn FnMut() -> bool,
    ) -> Result<Option<Evaluation>> {
        let (speaker, data) = (&prepared.speaker, &prepared.data.eval);
        let prompts: Vec<&[u32]> = data.iter().map(|e| &e.ids[..]).collect();
        let settings = SampleSettings { temperature: 0.0, ..self.settings(recipe) };
        let Some(drawn) = rollout::draw(&speaker.model, &prompts, 1, &settings, &speaker.stop_ids, 0, go_on)? else {
            return Ok(None);
        };
        let texts = texts(speaker, &drawn)?;
        let known = self.eval_prompts.as_ref().unwrap_or(&self.prompts);
        let of_row = |row: u32| known.get(row as usize).and_then(Option::as_ref);
        let asked: Vec<&Prompt> = data.iter().map(|e| of_row(e.row)).collect::<Option<_>>().ok_or_else(lost)?;
        let scores = score(&mut self.rewards, &asked, &drawn, &texts)?;
        let totals: Vec<f64> = scores.iter().map(|s| self.rewards.total(s)).collect();
        let mut metrics = reward_metrics(&self.rewards, &scores, &totals);
        metrics.extend(length_metrics(&drawn));
        let label_tokens = drawn.iter().map(|d| d.ids.len() as u64).sum();
        Ok(Some(Evaluation { loss: f64::NAN, label_tokens, metrics, score: -mean(&totals) }))
    }

    fn write(&self, dir: &Path) -> Result<()> {
        match &self.rollouts {
            Some(rollouts) if self.grpo.num_iterations > 1 => rollouts.write(dir),
            _ => Ok(()),
        }
    }

    fn read(&mut self, dir: &Path) -> Result<()> {
        self.rollouts = Rollouts::read(dir)?;
        Ok(())
    }
}

/// The example that each completion answers.
fn drawn_for(examples: &[usize], group: usize) -> impl Iterator<Item = usize> + '_ {
    examples.iter().flat_map(move |&i| std::iter::repeat_n(i, group))
}

fn lost() -> Error {
    Error::new("a prompt's row is not there any more").next("clear the token cache: finetop cache clear")
}

/// Completions as text, without what ends them.
fn texts(speaker: &Speaker, drawn: &[Drawn]) -> Result<Vec<String>> {
    drawn.iter().map(|d| speaker.decode(&d.ids)).collect()
}

/// Prompts with their completions, laid end to end; the completions are the labels, those that are masked are left out.
fn laid(data: &[Example], completions: &[Completion]) -> Batch {
    let examples: Vec<Example> = completions
        .iter()
        .filter(|c| c.trained() > 0)
        .map(|c| {
            let prompt = &data[c.example];
            let ids: Vec<u32> = prompt.ids.iter().chain(&c.ids).copied().collect();
            let trained = (0..ids.len()).map(|i| i >= prompt.ids.len()).collect::<Vec<bool>>().into();
            Example { ids: ids.into(), trained, row: prompt.row, truncated: false }
        })
        .collect();
    Batch::of(&examples.iter().collect::<Vec<_>>())
}

/// What the policy (or the reference) says of each completion that is trained on: its place, and its log-probabilities.
fn asked_of(
    model: &mut Engine,
    reference: Option<&Reference>,
    rollouts: &Rollouts,
    data: &[Example],
    size: usize,
    grpo: &GrpoSection,
) -> Result<Vec<(usize, Vec<f32>)>> {
    // In the micro-batches of the step, so that the policy's own log-probabilities come out the same.
    let batches: Vec<Batch> =
        rollouts.completions.chunks(size).map(|c| laid(data, c)).filter(|b| !b.ids.is_empty()).collect();
    let said = match reference {
        Some(reference) => reference.log_probabilities(model, &batches, of(grpo, false))?,
        None => model.log_probabilities(&batches, of(grpo, false), Voice::Policy)?,
    };
    let mut labels = said.iter().flat_map(|s| s.labels.iter().copied());
    let trained = rollouts.completions.iter().enumerate().filter(|(_, c)| c.trained() > 0);
    Ok(trained.map(|(i, c)| (i, labels.by_ref().take(c.trained()).collect())).collect())
}

fn score(rewards: &mut Rewards, asked: &[&Prompt], drawn: &[Drawn], texts: &[String]) -> Result<Vec<Vec<f64>>> {
    let answers: Vec<Answer> = asked
        .iter()
        .zip(drawn.iter().zip(texts))
        .map(|(p, (d, text))| Answer { prompt: &p.prompt, completion: text, ids: &d.ids, columns: &p.columns })
        .collect();
    rewards.score(&answers)
}

/// The mean and spread of the whole reward, and of each function's.
fn reward_metrics(rewards: &Rewards, scores: &[Vec<f64>], totals: &[f64]) -> Metrics {
    let mut metrics = Metrics::new();
    let mut put = |name: String, values: &[f64]| {
        metrics.insert(format!("{name}mean"), mean(values));
        metrics.insert(format!("{name}std"), deviation(values));
    };
    for (i, name) in rewards.names().enumerate() {
        let own: Vec<f64> = scores.iter().map(|s| s[i]).collect();
        put(format!("rewards/{name}/"), &own);
    }
    metrics.insert("reward".into(), mean(totals));
    metrics.insert("reward_std".into(), deviation(totals));
    metrics.retain(|_, v| v.is_finite());
    metrics
}

fn length_metrics(drawn: &[Drawn]) -> Metrics {
    let lengths: Vec<f64> = drawn.iter().map(|d| d.ids.len() as f64).collect();
    let cut = drawn.iter().filter(|d| d.truncated).count() as f64 / drawn.len().max(1) as f64;
    let ended: Vec<f64> = drawn.iter().filter(|d| !d.truncated).map(|d| d.ids.len() as f64).collect();
    [
        ("completions/mean_length", mean(&lengths)),
        ("completions/min_length", lengths.iter().copied().fold(f64::INFINITY, f64::min)),
        ("completions/max_length", lengths.iter().copied().fold(f64::NEG_INFINITY, f64::max)),
        ("completions/clipped_ratio", cut),
        ("completions/mean_terminated_length", mean(&ended)),
    ]
    .into_iter()
    .filter(|(_, v)| v.is_finite())
    .map(|(name, v)| (name.to_string(), v))
    .collect()
}

/// The first prompt's completions, for the eye.
#[allow(clippy::too_many_arguments)]
fn shown(
    rewards: &Rewards,
    prompt: &Prompt,
    row: u32,
    drawn: &[Drawn],
    texts: &[String],
    scores: &[Vec<f64>],
    totals: &[f64],
    advantages: &[f64],
) -> Completions {
    let known = |v: f64| Some(v).filter(|v| v.is_finite());
    let list = drawn.iter().enumerate().map(|(i, d)| Scored {
        text: texts[i].clone(),
        tokens: d.ids.len() as u32,
        truncated: d.truncated,
        reward: known(totals[i]),
        scores: scores[i].iter().map(|&s| known(s)).collect(),
        advantage: advantages[i],
    });
    let answer = prompt.columns.get("answer").filter(|a| !a.is_null());
    Completions {
        row,
        prompt: match &prompt.prompt {
            Value::Array(turns) => turns.last().and_then(|m| m["content"].as_str()).unwrap_or_default().to_string(),
            other => other.as_str().unwrap_or_default().to_string(),
        },
        answer: answer.map(|a| a.as_str().map_or_else(|| a.to_string(), str::to_string)),
        functions: rewards.names().map(str::to_string).collect(),
        list: list.collect(),
    }
}

/// What the step's losses add up to, by TRL's names.
#[derive(Default)]
struct Tally {
    kl: f64,
    low: f64,
    high: f64,
    ratios: f64,
    entropy: f64,
    tokens: f64,
}

impl Tally {
    fn add(&mut self, lost: &loss::Lost) {
        self.kl += lost.kl;
        self.low += lost.clipped_low;
        self.high += lost.clipped_high;
        self.ratios += lost.ratios;
    }

    fn metrics(&self, kl: bool) -> Metrics {
        let mut all = vec![
            ("entropy", self.entropy / self.tokens),
            ("clip_ratio/low_mean", self.low / self.ratios),
            ("clip_ratio/high_mean", self.high / self.ratios),
            ("clip_ratio/region_mean", (self.low + self.high) / self.ratios),
        ];
        if kl {
            all.push(("kl", self.kl / self.tokens));
        }
        all.into_iter().filter(|(_, v)| v.is_finite()).map(|(name, v)| (name.to_string(), v)).collect()
    }
}
