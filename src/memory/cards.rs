//! NVIDIA cards by NVML, loaded at run time: absent is no error, and a value that a card does not tell stays unknown.

use nvml_wrapper::Nvml;
use nvml_wrapper::enum_wrappers::device::{Clock, TemperatureSensor};
use std::ffi::OsStr;

/// One reading of one card.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Card {
    /// As NVML says it: `NVIDIA H100 80GB HBM3`.
    pub name: Option<String>,
    /// `GPU-…`.
    pub uuid: Option<String>,
    /// PCI bus id: `00000000:1B:00.0`. CUDA's order of cards may be another than NVML's; this is the same.
    pub pci_bus_id: Option<String>,
    /// Bytes, of all processes.
    pub memory_used: Option<u64>,
    pub memory_total: Option<u64>,
    /// Percent of the last sample period.
    pub utilization: Option<u32>,
    /// Watts.
    pub power: Option<f64>,
    /// Degrees Celsius.
    pub temperature: Option<u32>,
    /// Streaming multiprocessors' clock, MHz.
    pub clock: Option<u32>,
}

impl Card {
    /// For titles: `H100 80GB`, `RTX 4090 24 GiB`.
    pub fn short_name(&self) -> Option<String> {
        let name = self.name.as_deref()?;
        let words: Vec<&str> =
            name.split_whitespace().filter(|w| !matches!(*w, "NVIDIA" | "GeForce" | "Tesla")).collect();
        let size = words.iter().position(|w| w.ends_with("GB") && w.starts_with(|c: char| c.is_ascii_digit()));
        Some(match (size, self.memory_total) {
            (Some(at), _) => words[..=at].join(" "),
            (None, Some(bytes)) => format!("{} {:.0} GiB", words.join(" "), bytes as f64 / (1u64 << 30) as f64),
            (None, None) => words.join(" "),
        })
    }
}

/// The cards of this machine that this process may use.
pub struct Cards {
    nvml: Option<Nvml>,
}

impl Cards {
    /// Load NVML: `libnvidia-ml.so`, else `libnvidia-ml.so.1`. Without a driver there are no cards.
    pub fn open() -> Self {
        let names = ["libnvidia-ml.so", "libnvidia-ml.so.1"];
        let nvml = names.iter().find_map(|name| Nvml::builder().lib_path(OsStr::new(name)).init().ok());
        Self { nvml }
    }

    /// One reading of each card that `CUDA_VISIBLE_DEVICES` leaves.
    pub fn read(&self) -> Vec<Card> {
        let Some(nvml) = &self.nvml else { return Vec::new() };
        let count = nvml.device_count().unwrap_or(0);
        let all = (0..count).filter_map(|i| nvml.device_by_index(i).ok()).map(|d| {
            let memory = d.memory_info().ok();
            Card {
                name: d.name().ok(),
                uuid: d.uuid().ok(),
                pci_bus_id: d.pci_info().ok().map(|p| p.bus_id),
                memory_used: memory.as_ref().map(|m| m.used),
                memory_total: memory.as_ref().map(|m| m.total),
                utilization: d.utilization_rates().ok().map(|u| u.gpu),
                power: d.power_usage().ok().map(|milliwatts| f64::from(milliwatts) / 1000.0),
                temperature: d.temperature(TemperatureSensor::Gpu).ok(),
                clock: d.clock_info(Clock::SM).ok(),
            }
        });
        let env = |name: &str| std::env::var(name).ok();
        visible(all.collect(), env("CUDA_VISIBLE_DEVICES").as_deref(), env("CUDA_DEVICE_ORDER").as_deref())
    }
}

/// The cards that `CUDA_VISIBLE_DEVICES` names, in its order; NVML itself does not look at it. Numbers count in CUDA's
/// own order, which is the bus's only when asked for (`PCI_BUS_ID`) or when all cards are alike: otherwise a number
/// tells nothing here, and all cards are given.
pub fn visible(mut all: Vec<Card>, devices: Option<&str>, order: Option<&str>) -> Vec<Card> {
    let Some(devices) = devices else { return all };
    all.sort_by(|a, b| a.pci_bus_id.cmp(&b.pci_bus_id));
    let alike = all.iter().all(|c| c.name == all[0].name) || order == Some("PCI_BUS_ID");
    let mut chosen = Vec::new();
    for word in devices.split(',').map(str::trim).filter(|w| !w.is_empty()) {
        let card = match word.parse::<usize>() {
            Ok(_) if !alike => return all,
            Ok(i) => all.get(i),
            Err(_) => all.iter().find(|c| c.uuid.as_deref().is_some_and(|u| u.starts_with(word))),
        };
        // CUDA stops at the first entry that names no card.
        let Some(card) = card else { break };
        chosen.push(card.clone());
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn card(name: &str, uuid: &str, bus: &str) -> Card {
        let text = |s: &str| Some(s.to_string());
        Card { name: text(name), uuid: text(uuid), pci_bus_id: text(bus), ..Card::default() }
    }

    fn names(cards: &[Card]) -> Vec<&str> {
        cards.iter().filter_map(|c| c.uuid.as_deref()).collect()
    }

    #[test]
    fn cards_have_the_names_people_use() {
        let named = |name: &str, gib: Option<u64>| {
            Card { name: Some(name.into()), memory_total: gib.map(|g| g << 30), ..Card::default() }
                .short_name()
                .unwrap()
        };
        assert_eq!(named("NVIDIA H100 80GB HBM3", Some(80)), "H100 80GB");
        assert_eq!(named("NVIDIA GeForce RTX 4090", Some(24)), "RTX 4090 24 GiB");
        assert_eq!(named("Tesla T4", None), "T4");
        assert_eq!(Card::default().short_name(), None);
    }

    #[test]
    fn visible_devices_are_matched_by_uuid_and_by_number_where_the_order_is_known() {
        let same = vec![card("A", "GPU-bb", "2"), card("A", "GPU-aa", "1")];
        assert_eq!(names(&visible(same.clone(), None, None)), ["GPU-bb", "GPU-aa"]);
        assert_eq!(names(&visible(same.clone(), Some("1"), None)), ["GPU-bb"]);
        assert_eq!(names(&visible(same.clone(), Some("GPU-b, GPU-a"), None)), ["GPU-bb", "GPU-aa"]);
        assert_eq!(names(&visible(same.clone(), Some(""), None)), Vec::<&str>::new());
        assert_eq!(names(&visible(same.clone(), Some("-1"), None)), Vec::<&str>::new());
        assert_eq!(names(&visible(same, Some("0,7,1"), None)), ["GPU-aa"]);
        let mixed = vec![card("A", "GPU-aa", "1"), card("B", "GPU-bb", "2")];
        assert_eq!(visible(mixed.clone(), Some("1"), None).len(), 2);
        assert_eq!(names(&visible(mixed, Some("1"), Some("PCI_BUS_ID"))), ["GPU-bb"]);
        assert!(visible(Vec::new(), Some("0"), None).is_empty());
    }

    #[test]
    fn opening_and_reading_never_fails_and_what_is_read_is_plausible() {
        let cards = Cards::open().read();
        // The driver's device node is there: then its library must be found, unless every card is hidden.
        if Path::new("/dev/nvidia0").exists() && std::env::var_os("CUDA_VISIBLE_DEVICES").is_none() {
            assert!(!cards.is_empty());
        }
        for card in cards {
            assert!(card.name.is_some() && card.uuid.as_deref().is_some_and(|u| u.starts_with("GPU-")), "{card:?}");
            if let (Some(used), Some(total)) = (card.memory_used, card.memory_total) {
                assert!(used <= total && total > 1 << 30, "{card:?}");
            }
            assert!(card.utilization.is_none_or(|u| u <= 100), "{card:?}");
            assert!(card.temperature.is_none_or(|t| t < 120), "{card:?}");
        }
    }
}
