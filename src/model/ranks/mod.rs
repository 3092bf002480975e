//! The processes of one training: each works on its share of every batch, and sums are taken over all of them.
//!
//! Rank 0 listens and the others connect to it. Sums are taken there, in the order of the ranks, so that every process
//! gets the same bits and a run repeats. Large sums between cards go over NCCL instead ([`crate::ops::cuda::nccl`]);
//! this is then how its processes find each other. Must not know what is trained.

mod place;

pub use self::place::Place;
use crate::{Error, Result};
use serde::{Serialize, de::DeserializeOwned};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

/// How long the processes wait for each other at the start.
const PATIENCE: Duration = Duration::from_secs(600);
/// How often they look, and how often they say what they wait for.
const LOOK: Duration = Duration::from_millis(20);
const SAY: Duration = Duration::from_secs(10);
/// What a process says first: a change of what follows changes it too.
const HELLO: &str = concat!("finetop ranks 1, version ", env!("CARGO_PKG_VERSION"));
/// The longest message that is not numbers.
const LONGEST: u64 = 64 << 20;

/// This process among the others.
#[derive(Debug)]
pub struct Ranks {
    rank: usize,
    size: usize,
    /// Rank 0: all others, in order. Else: rank 0.
    links: Vec<TcpStream>,
}

#[derive(Serialize, serde::Deserialize)]
struct Hello {
    hello: String,
    rank: usize,
    size: usize,
}

impl Ranks {
    /// The only process.
    pub fn alone() -> Self {
        Self { rank: 0, size: 1, links: Vec::new() }
    }

    /// Meet the others. `say` hears who is waited for.
    ///
    /// # Errors
    /// Nobody there in ten minutes, two processes of one rank, or another version of the program.
    pub fn join(place: &Place, say: &mut dyn FnMut(&str)) -> Result<Self> {
        let links = match place.rank {
            0 => gather(place, say)?,
            _ => vec![connect(place, say)?],
        };
        for link in &links {
            // Small messages go at once; a host that vanished is noticed.
            let _ = link.set_nodelay(true);
            let _ = rustix::net::sockopt::set_socket_keepalive(link, true);
        }
        Ok(Self { rank: place.rank, size: place.size, links })
    }

    pub fn rank(&self) -> usize {
        self.rank
    }

    pub fn size(&self) -> usize {
        self.size
    }

    /// Whether this is rank 0, which writes and is spoken to.
    pub fn leads(&self) -> bool {
        self.rank == 0
    }

    /// Whether piece `index` of some work is this process's.
    pub fn mine(&self, index: usize) -> bool {
        index % self.size == self.rank
    }

    /// What rank 0 says, to all: it passes `Some`, the others `None`.
    pub fn tell<T: Serialize + DeserializeOwned>(&mut self, word: Option<T>) -> Result<T> {
        match (self.leads(), word) {
            (true, Some(word)) => {
                let bytes = serde_json::to_vec(&word)?;
                for (i, link) in self.links.iter_mut().enumerate() {
                    send(link, &bytes).map_err(|e| gone(i + 1, &e))?;
                }
                Ok(word)
            }
            (true, None) => Err(Error::new("rank 0 has nothing to say")),
            (false, _) => {
                let link = self.links.first_mut().ok_or_else(|| Error::new("rank 0 is not connected"))?;
                Ok(serde_json::from_slice(&receive(link).map_err(|e| gone(0, &e))?)?)
            }
        }
    }

    /// Each number becomes its sum over all ranks.
    pub fn sum(&mut self, numbers: &mut [f64]) -> Result<()> {
        self.add_up(numbers, f64::to_le_bytes, f64::from_le_bytes)
    }

    /// As [`Ranks::sum`], in f32.
    pub fn sum_f32(&mut self, numbers: &mut [f32]) -> Result<()> {
        self.add_up(numbers, f32::to_le_bytes, f32::from_le_bytes)
    }

    fn add_up<T: Copy + std::ops::AddAssign, const N: usize>(
        &mut self,
        numbers: &mut [T],
        to: fn(T) -> [u8; N],
        from: fn([u8; N]) -> T,
    ) -> Result<()> {
        let bytes = |numbers: &[T]| numbers.iter().flat_map(|x| to(*x)).collect::<Vec<u8>>();
        let mut theirs = vec![0u8; N * numbers.len()];
        let values = |bytes: &[u8]| -> Vec<T> { bytes.as_chunks::<N>().0.iter().map(|b| from(*b)).collect() };
        if self.leads() {
            for (i, link) in self.links.iter_mut().enumerate() {
                link.read_exact(&mut theirs).map_err(|e| gone(i + 1, &e))?;
                numbers.iter_mut().zip(values(&theirs)).for_each(|(x, y)| *x += y);
            }
            let all = bytes(numbers);
            for (i, link) in self.links.iter_mut().enumerate() {
                link.write_all(&all).map_err(|e| gone(i + 1, &e))?;
            }
            return Ok(());
        }
        for link in &mut self.links {
            link.write_all(&bytes(numbers)).and_then(|()| link.read_exact(&mut theirs)).map_err(|e| gone(0, &e))?;
            numbers.copy_from_slice(&values(&theirs));
        }
        Ok(())
    }
}

/// Rank 0's part of meeting.
fn gather(place: &Place, say: &mut dyn FnMut(&str)) -> Result<Vec<TcpStream>> {
    let fail = |e: std::io::Error| {
        Error::new(format!("cannot listen for the other ranks: {e}"))
            .at(format!("port {}", place.port))
            .next("choose another port with MASTER_PORT")
    };
    // Ranks of one host meet where nobody else gets to.
    let near = matches!(place.host.as_str(), "localhost" | "127.0.0.1");
    let address = if near { "127.0.0.1" } else { "0.0.0.0" };
    let listener = TcpListener::bind((address, place.port)).map_err(fail)?;
    listener.set_nonblocking(true).map_err(fail)?;
    let mut links: Vec<Option<TcpStream>> = (1..place.size).map(|_| None).collect();
    let mut wait = Wait::new();
    while links.iter().any(Option::is_none) {
        if let Ok((mut link, _)) = listener.accept() {
            // Strangers are sent away, never waited for.
            let polite = || -> std::io::Result<Hello> {
                link.set_nonblocking(false)?;
                link.set_read_timeout(Some(Duration::from_secs(5)))?;
                let hello = serde_json::from_slice(&receive(&mut link)?)?;
                link.set_read_timeout(None)?;
                Ok(hello)
            };
            let Ok(hello) = { polite }() else { continue };
            let answer = match hello {
                Hello { hello, .. } if hello != HELLO => format!("rank 0 is {HELLO}"),
                Hello { size, .. } if size != place.size => format!("rank 0 counts {} processes", place.size),
                Hello { rank, .. } => match links.get_mut(rank.wrapping_sub(1)) {
                    Some(slot @ None) => {
                        if send(&mut link, b"\"\"").is_ok() {
                            *slot = Some(link);
                        }
                        continue;
                    }
                    Some(Some(_)) => format!("there is a rank {rank} already"),
                    None => format!("there is no rank {rank}"),
                },
            };
            let _ = send(&mut link, serde_json::to_string(&answer)?.as_bytes());
            continue;
        }
        let missing = || {
            let ranks = links.iter().enumerate().filter(|(_, l)| l.is_none()).map(|(i, _)| (i + 1).to_string());
            format!("rank {}", ranks.collect::<Vec<_>>().join(", "))
        };
        wait.look(say, &|| format!("port {}: waiting for {}", place.port, missing()))?;
    }
    Ok(links.into_iter().flatten().collect())
}

/// The others' part.
fn connect(place: &Place, say: &mut dyn FnMut(&str)) -> Result<TcpStream> {
    let target = format!("{}:{}", place.host, place.port);
    let mut wait = Wait::new();
    loop {
        let link = target.to_socket_addrs().ok().and_then(|mut all| all.find_map(|a| TcpStream::connect(a).ok()));
        if let Some(mut link) = link {
            let hello = Hello { hello: HELLO.into(), rank: place.rank, size: place.size };
            let answer = send(&mut link, &serde_json::to_vec(&hello)?).and_then(|()| receive(&mut link));
            if let Ok(answer) = answer {
                let refusal: String = serde_json::from_slice(&answer)?;
                return match refusal.as_str() {
                    "" => Ok(link),
                    why => Err(Error::new(format!("rank {} cannot take part: {why}", place.rank))),
                };
            }
        }
        wait.look(say, &|| format!("waiting for rank 0 at {target}"))?;
    }
}

struct Wait {
    since: Instant,
    said: Instant,
}

impl Wait {
    fn new() -> Self {
        Self { since: Instant::now(), said: Instant::now() }
    }

    fn look(&mut self, say: &mut dyn FnMut(&str), what: &dyn Fn() -> String) -> Result<()> {
        if self.since.elapsed() > PATIENCE {
            return Err(Error::new(format!("{}: gave up", what())).next("see whether all processes were started"));
        }
        if self.said.elapsed() > SAY {
            self.said = Instant::now();
            say(&what());
        }
        std::thread::sleep(LOOK);
        Ok(())
    }
}

fn gone(rank: usize, e: &std::io::Error) -> Error {
    Error::new(format!("rank {rank} is gone ({e})")).next("its own messages say why; the run can be resumed")
}

fn send(link: &mut TcpStream, bytes: &[u8]) -> std::io::Result<()> {
    link.write_all(&(bytes.len() as u64).to_le_bytes())?;
    link.write_all(bytes)
}

fn receive(link: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut len = [0u8; 8];
    link.read_exact(&mut len)?;
    let len = u64::from_le_bytes(len);
    if len > LONGEST {
        return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, format!("a message of {len} bytes")));
    }
    let mut bytes = vec![0u8; len as usize];
    link.read_exact(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn free_port() -> u16 {
        TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
    }

    fn place(rank: usize, size: usize, port: u16) -> Place {
        Place { rank, size, host: "127.0.0.1".into(), port }
    }

    /// Run `work` as each of `size` ranks.
    fn together<T: Send>(size: usize, work: impl Fn(Ranks) -> T + Sync) -> Vec<T> {
        let port = free_port();
        std::thread::scope(|s| {
            let work = &work;
            let all: Vec<_> = (0..size)
                .map(|rank| s.spawn(move || work(Ranks::join(&place(rank, size, port), &mut |_| {}).unwrap())))
                .collect();
            all.into_iter().map(|t| t.join().unwrap()).collect()
        })
    }

    #[test]
    fn every_rank_gets_the_same_sums_in_the_order_of_the_ranks() {
        // In another order the f32 sum of these would differ in its last bits.
        let own = |rank: usize| (0..5000).map(|i| 1.0 / (1.0 + rank as f32 * 7.3 + i as f32)).collect::<Vec<_>>();
        let all = together(4, |mut ranks| {
            let mut v = own(ranks.rank());
            ranks.sum_f32(&mut v).unwrap();
            let mut one = [ranks.rank() as f64, 1.0];
            ranks.sum(&mut one).unwrap();
            assert_eq!(one, [6.0, 4.0]);
            v
        });
        let mut expected = own(0);
        for rank in 1..4 {
            expected.iter_mut().zip(own(rank)).for_each(|(x, y)| *x += y);
        }
        assert!(all.iter().all(|v| *v == expected));
    }

    #[test]
    fn what_rank_0_says_reaches_all_and_work_is_shared_without_overlap() {
        let shares = together(3, |mut ranks| {
            let word = ranks.tell(ranks.leads().then(|| vec![Some("stop".to_string()), None])).unwrap();
            assert_eq!(word, [Some("stop".to_string()), None]);
            (0..7).filter(|i| ranks.mine(*i)).collect::<Vec<_>>()
        });
        assert_eq!(shares, [vec![0, 3, 6], vec![1, 4], vec![2, 5]]);
    }

    #[test]
    fn a_rank_that_is_gone_is_named() {
        let errors = together(3, |mut ranks| {
            if ranks.rank() == 2 {
                return String::new();
            }
            ranks.sum(&mut [1.0]).unwrap_err().to_string()
        });
        assert!(errors[0].contains("rank 2 is gone"), "{errors:?}");
        assert!(errors[1].contains("rank 0 is gone"), "{errors:?}");
    }

    #[test]
    fn strangers_and_doubles_are_sent_away() {
        let port = free_port();
        let refused = std::thread::scope(|s| {
            let first = s.spawn(move || Ranks::join(&place(0, 3, port), &mut |_| {}).unwrap());
            let join = |rank, size| Ranks::join(&place(rank, size, port), &mut |_| {});
            let one = join(1, 3).unwrap();
            let mut refused = vec![join(1, 3).unwrap_err(), join(7, 3).unwrap_err(), join(2, 4).unwrap_err()];
            let mut stranger = TcpStream::connect(("127.0.0.1", port)).unwrap();
            stranger.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
            let two = join(2, 3).unwrap();
            drop((one, two, first.join().unwrap()));
            refused.drain(..).map(|e| e.to_string()).collect::<Vec<_>>()
        });
        for (why, e) in ["a rank 1 already", "no rank 7", "counts 3 processes"].iter().zip(&refused) {
            assert!(e.contains(why), "{e}");
        }
    }
}
