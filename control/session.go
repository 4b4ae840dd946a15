package control

import (
	"crypto/sha256"
	"fmt"
	"sync"
	"time"
)

const (
	// sessionsMax bounds the sessions kept: 32 bytes each, and nobody has more
	// than a few browsers. At the bound the oldest one ends.
	sessionsMax = 64
	// sessionLife is a working day: afterwards the token is asked for again.
	sessionLife = 12 * time.Hour
	// loginsMax bounds the one-time links that wait for their use; at the bound
	// the oldest one is void.
	loginsMax = 16
	// loginLife is how long a one-time link is good for: it stands in the
	// scroll-back of a terminal.
	loginLife = time.Hour
	// secretBytes of randomness in a session or link: 256 bits.
	secretBytes = 32
)

// digest stands for a secret in memory and as a map's key: looking it up takes
// a time that says nothing about how much of a guess was right.
type digest [sha256.Size]byte

func digestOf(secret string) digest { return sha256.Sum256([]byte(secret)) }

// sessions holds one-time links and the sessions that come of them, in memory
// only: they end with the process.
type sessions struct {
	mu     sync.Mutex
	logins map[digest]time.Time // → when it is void
	live   map[digest]time.Time // → when it ends
}

// newLogin makes the secret of a one-time link.
func (s *sessions) newLogin(now time.Time) (string, error) {
	return s.add(&s.logins, loginsMax, now.Add(loginLife))
}

// signIn makes a session.
func (s *sessions) signIn(now time.Time) (string, error) {
	return s.add(&s.live, sessionsMax, now.Add(sessionLife))
}

func (s *sessions) add(to *map[digest]time.Time, most int, end time.Time) (string, error) {
	secret, err := randomText(secretBytes)
	if err != nil {
		return "", fmt.Errorf("make session: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if *to == nil {
		*to = map[digest]time.Time{}
	}
	if len(*to) >= most {
		var oldest digest
		first := time.Time{}
		for d, t := range *to {
			if first.IsZero() || t.Before(first) {
				oldest, first = d, t
			}
		}
		delete(*to, oldest)
	}
	(*to)[digestOf(secret)] = end
	return secret, nil
}

// useLogin says whether secret is a one-time link's, and voids it.
func (s *sessions) useLogin(secret string, now time.Time) bool {
	d := digestOf(secret)
	s.mu.Lock()
	defer s.mu.Unlock()
	end, ok := s.logins[d]
	delete(s.logins, d)
	return ok && now.Before(end)
}

// valid says whether secret names a session that has not ended.
func (s *sessions) valid(secret string, now time.Time) bool {
	d := digestOf(secret)
	s.mu.Lock()
	defer s.mu.Unlock()
	end, ok := s.live[d]
	if ok && !now.Before(end) {
		delete(s.live, d)
		ok = false
	}
	return ok
}

// end ends a session, if it is one.
func (s *sessions) end(secret string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.live, digestOf(secret))
}

// endAll ends every session and voids every link.
func (s *sessions) endAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.live)
	clear(s.logins)
}
