//! Registering, logging in and out, and the end of an account.

use std::net::IpAddr;
use std::sync::PoisonError;

use super::{DEFAULT_CHAT, DEFAULT_ROLE, Sessions};
use crate::broker::Control;
use crate::model::{SessionId, UserId};
use crate::session::{AccountError, Begun, LoggedIn, StoreError, User, UserName, Verdict, upkeep};

/// How often an account may turn out to be another one once its password was checked: two logins at once may both find an
/// old hash, of which one puts a new one in its place.
const LOGIN_TRIES: usize = 3;

impl Sessions {
    /// Makes an account, for somebody at an address.
    ///
    /// # Errors
    /// When the name is taken, there were too many attempts from there, or it could not be made.
    pub async fn register(
        &self,
        name: UserName,
        email: &str,
        password: &str,
        ip: IpAddr,
    ) -> Result<(), AccountError> {
        self.attempts
            .check_registration(ip)
            .map_err(AccountError::TooMany)?;
        // A look first: a hash costs a thousand looks.
        if self.store.user(&name).await?.is_some() {
            return Err(AccountError::Taken);
        }
        let password = self.passwords.hash(password).await?.into();
        let now = self.store.now();
        let user = User {
            name,
            email: email.into(),
            password,
            role: DEFAULT_ROLE.into(),
            created_at: now,
            last_login: now,
        };
        let username = user.name.text().clone();
        if self.store.add_user(user).await? {
            self.announce("user:register", &username, &[("username", &username)]);
            Ok(())
        } else {
            Err(AccountError::Taken)
        }
    }

    /// Logs a user in from an address, and ends the user's other sessions where there may be only one.
    ///
    /// # Errors
    /// When it is not that user, or nobody can say.
    pub async fn log_in(
        &self,
        name: UserName,
        password: &str,
        ip: IpAddr,
    ) -> Result<LoggedIn, AccountError> {
        self.attempts
            .check(&name, ip)
            .map_err(AccountError::TooMany)?;
        for _ in 0..LOGIN_TRIES {
            if let Some(logged_in) = self.try_to_log_in(&name, password).await? {
                return Ok(logged_in);
            }
        }
        Err(AccountError::Refused)
    }

    /// `None` when the account is another one since its password was checked, or has another password or hash.
    async fn try_to_log_in(
        &self,
        name: &UserName,
        password: &str,
    ) -> Result<Option<LoggedIn>, AccountError> {
        let user = self.store.user(name).await?;
        let kept = user.as_ref().map(|user| &*user.password);
        let verdict = self.passwords.verify(password, kept).await?;
        let (Some(user), Verdict::Right | Verdict::RightButOld) = (user, verdict) else {
            return Err(AccountError::Refused);
        };
        let session = self.new_session(user.name.text(), DEFAULT_CHAT);
        let id = session.head.id;
        let (name, hash) = (user.name.clone(), user.password.clone());
        let begun = self.store.begin_login(name, hash, session, self.is_single);
        let begun = begun.await;
        if begun == Err(StoreError::OutcomeUnknown) {
            // Nobody gets a token for it. Where it has ended others, their sockets hear so when they use their sessions.
            self.end_unheld(id);
        }
        let Some(Begun { role, ended }) = begun? else {
            return Ok(None);
        };
        self.close_sockets(user.name.text(), ended).await;
        if verdict == Verdict::RightButOld {
            self.renew_hash(&user, password).await;
        }
        let session_id = id.to_string();
        self.announce(
            "session:new",
            user.name.text(),
            &[("session_id", &session_id), ("chat_id", DEFAULT_CHAT)],
        );
        self.announce_use("http", user.name.text(), id);
        Ok(Some(LoggedIn {
            user: user.name.text().clone(),
            role,
            session: id,
        }))
    }

    /// Ends a session that may have begun, and that nobody was told of.
    fn end_unheld(&self, session: SessionId) {
        let runtime = self.runtime.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(runtime) = &*runtime {
            runtime.spawn(upkeep::end_unheld(self.store.clone(), session));
        }
    }

    /// Keeps a hash of today's kind. When that fails, the old one serves until the next login.
    async fn renew_hash(&self, user: &User, password: &str) {
        let Ok(hash) = self.passwords.hash(password).await else {
            return;
        };
        let replaced = self
            .store
            .replace_password(&user.name, &user.password, &hash);
        if let Err(error) = replaced.await {
            tracing::debug!(%error, "an old password hash stays for now");
        }
    }

    /// Ends the session of a login; all sessions of the user where there may be only one, or when the token names
    /// none. Closes their sockets on every node.
    ///
    /// # Errors
    /// When the store failed: nothing has ended.
    pub async fn log_out(&self, user: &UserId, login: Option<SessionId>) -> Result<(), StoreError> {
        match login {
            Some(session) if !self.is_single => {
                let ended = self.store.end_session(session).await;
                // It may have, where the answer was lost.
                if matches!(ended, Ok(_) | Err(StoreError::OutcomeUnknown)) {
                    self.close_sockets(user, vec![session]).await;
                }
                ended?;
            }
            Some(_) => {
                let ended = self.store.end_sessions(user).await;
                let ended = self.or_log_out(user, ended).await?;
                self.close_sockets(user, ended).await;
            }
            None => self.end_all(user).await?,
        }
        let session_id = login.map(|login| login.to_string()).unwrap_or_default();
        self.announce("session:logout", user, &[("session_id", &session_id)]);
        Ok(())
    }

    /// Deletes the account that was registered under exactly this name, with its sessions, and closes its sockets on every
    /// node. Answers whether there was one: another issuer's user whose name differs in case or form is somebody else.
    ///
    /// # Errors
    /// When the store failed: nothing is deleted.
    pub async fn delete_account(&self, user: &UserId) -> Result<bool, StoreError> {
        let removed = match self.registered(user).await? {
            Some(name) => {
                let removed = self.store.remove_user(&name).await;
                self.or_log_out(user, removed).await?
            }
            None => None,
        };
        let is_removed = removed.is_some();
        if let Some(ended) = removed {
            self.close_sockets(user, ended).await;
        }
        // Sessions that began meanwhile, and sockets that have none.
        self.end_all(user).await?;
        if is_removed {
            self.announce("user:delete", user, &[("username", user)]);
            self.announce("account:deleted", user, &[("username", user)]);
        }
        Ok(is_removed)
    }

    /// The name of the account that was registered as exactly this.
    async fn registered(&self, user: &UserId) -> Result<Option<UserName>, StoreError> {
        // A name of another issuer's may be one that nobody could register here.
        let Ok(name) = UserName::new(user) else {
            return Ok(None);
        };
        let found = self.store.user(&name).await?.map(|found| found.name);
        Ok(found.filter(|name| **name.text() == **user))
    }

    /// Makes somebody a user like any other, as [`Sessions::set_role`] does.
    ///
    /// # Errors
    /// The same.
    pub async fn demote(&self, name: &UserName) -> Result<bool, StoreError> {
        self.set_role(name, DEFAULT_ROLE).await
    }

    /// Gives a user another role, at once: a token that says something else ends with its session, and so do its sockets.
    /// Answers whether there is such a user. Whoever has the role already loses the sessions as well, so that a call that
    /// failed half way can be made again.
    ///
    /// # Errors
    /// When the store failed; the role may have changed then, and sessions not ended.
    pub async fn set_role(&self, name: &UserName, role: &str) -> Result<bool, StoreError> {
        // The role first: whoever logs in meanwhile gets the new one.
        if !self.store.set_role(name, role).await? {
            return Ok(false);
        }
        // Sessions are kept under the name as it was registered.
        if let Some(user) = self.store.user(name).await? {
            self.end_all(user.name.text()).await?;
        }
        Ok(true)
    }

    /// Ends all sessions of a user and closes all sockets.
    async fn end_all(&self, user: &UserId) -> Result<(), StoreError> {
        let ended = self.store.end_sessions(user).await;
        let ended = self.or_log_out(user, ended).await?;
        self.close_sockets(user, ended).await;
        self.tell(Control::LogOut(user.clone())).await;
        Ok(())
    }

    /// Closes all sockets of a user whose sessions may have ended: nobody knows, for the answer was lost.
    async fn or_log_out<T>(
        &self,
        user: &UserId,
        ended: Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        if matches!(ended, Err(StoreError::OutcomeUnknown)) {
            self.tell(Control::LogOut(user.clone())).await;
        }
        ended
    }
}
