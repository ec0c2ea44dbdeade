//! `kinfold init`: this device's identity and configuration.

use std::net::SocketAddr;

use crate::cli::context::Context;
use crate::cli::error::Failure;
use crate::cli::exit::Exit;
use crate::cli::output;
use crate::cli::unlock;
use crate::config::address;
use crate::config::address::AddressError;
use crate::config::edit;
use crate::config::error::check_label;
use crate::config::file::create_private_dir;
use crate::keys::identity::Identity;
use crate::model::id::DeviceId;

/// Arguments of `kinfold init`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What people call this device [default: its host name]
    #[arg(long)]
    name: Option<String>,

    /// Listen on this address, HOST or HOST:PORT, instead of on all; may be repeated
    #[arg(long, value_name = "ADDR", value_parser = address)]
    listen: Vec<SocketAddr>,
}

/// Runs the command.
pub fn run(context: &Context, args: &Args) -> Result<Exit, Failure> {
    let config_file = &context.paths.config_file;
    if config_file.exists() && context.paths.identity().exists() {
        return Err(Failure::new(Exit::Failed, format!("this device is set up already: {}", config_file.display()))
            .with_hint("nothing was changed; to set it up differently, edit that file"));
    }
    if config_file.exists() && (args.name.is_some() || !args.listen.is_empty()) {
        return Err(Failure::new(Exit::Failed, format!("there is a configuration already: {}", config_file.display()))
            .with_hint("run `kinfold init` without --name and --listen, or edit that file"));
    }
    let id = set_up(context, args.name.as_deref(), &args.listen)?;
    let name = context.config()?.name;
    output::say(format_args!("This device is `{}`, {id}", output::escaped(&name)))?;
    output::say(format_args!("Its configuration is {}", output::printable(&config_file.display().to_string())))?;
    Ok(Exit::Done)
}

/// Makes what is missing of identity and configuration, and returns the device id.
pub fn set_up(context: &Context, name: Option<&str>, listen: &[SocketAddr]) -> Result<DeviceId, Failure> {
    let paths = &context.paths;
    if !paths.config_file.exists() {
        edit::init(paths, name.unwrap_or(&host_name()), listen)?;
    }
    let identity = paths.identity();
    if unlock::credential(unlock::IDENTITY).is_none() && !identity.exists() {
        create_private_dir(&paths.state_dir)
            .map_err(|error| Failure::from_error(&error).while_doing("cannot create the state directory"))?;
        Identity::create(&identity)?;
    }
    context.own_id()
}

fn host_name() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    if check_label(&name).is_ok() { name } else { "device".to_owned() }
}

fn address(text: &str) -> Result<SocketAddr, AddressError> {
    address::parse_listen(text)
}
