//! The mark that a workspace carries: whose copy it is. Another checkout, machine or user that would share it is told.

use crate::error::Result;
use crate::hexadecimal;

/// Whose a workspace is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    /// Tells this workspace from every other; made by chance.
    pub id: String,
    /// The project's root on its machine.
    pub checkout: String,
    /// The machine's name, for people.
    pub machine: String,
    /// The user there.
    pub user: String,
    /// The machine's own ID: names may be equal.
    pub machine_id: String,
}

impl Owner {
    /// Of a project of this machine, with a new mark.
    ///
    /// # Errors
    /// A system without random numbers.
    pub fn new(checkout: &std::path::Path, machine_id: &str, user: &str) -> Result<Self> {
        let line = |text: &str| text.replace(['\n', '\r'], " ");
        Ok(Self {
            id: hexadecimal::random::<16>()?,
            checkout: line(&checkout.to_string_lossy()),
            machine: line(&rustix::system::uname().nodename().to_string_lossy()),
            user: line(user),
            machine_id: line(machine_id),
        })
    }

    /// The mark: five lines.
    pub fn render(&self) -> String {
        format!(
            "{}\n{}\n{}\n{}\n{}\n",
            self.id, self.checkout, self.machine, self.user, self.machine_id
        )
    }

    /// Reads a mark; `None` if its writing was never finished.
    pub fn parse(text: &str) -> Option<Self> {
        // Not by `lines`, which takes a carriage return for a part of the end.
        let mut lines = text.split('\n').map(str::to_owned);
        let owner = Self {
            id: lines.next()?,
            checkout: lines.next()?,
            machine: lines.next()?,
            user: lines.next()?,
            machine_id: lines.next()?,
        };
        let is_id = owner.id.len() == 32 && owner.id.bytes().all(|byte| byte.is_ascii_hexdigit());
        // Behind the last line's end there is something, if only nothing.
        (is_id && lines.next().is_some()).then_some(owner)
    }

    /// Whether both are the same checkout.
    pub fn is_same_checkout(&self, other: &Self) -> bool {
        (&self.checkout, &self.machine_id, &self.user) == (&other.checkout, &other.machine_id, &other.user)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_read_as_it_was_written_and_not_when_it_was_cut() {
        let owner = Owner::new(std::path::Path::new("/home/ann/my\nproject"), "0f", "ann").unwrap();
        let text = owner.render();
        assert_eq!(Owner::parse(&text), Some(owner));
        for end in 0..text.len() {
            assert_eq!(Owner::parse(&text[..end]), None, "{end}");
        }
    }

    #[test]
    fn a_carriage_return_belongs_to_its_line() {
        let text = format!("{}\nc\r\nm\r\ru\r\nuser\r\r\nid\n", "5".repeat(32));
        let owner = Owner::parse(&text).unwrap();
        assert_eq!((owner.user.as_str(), owner.render()), ("user\r\r", text));
    }
}
