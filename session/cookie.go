package session

import (
	"fmt"
	"net/http"
	"strings"
	"time"
)

// The cookies. Their names are spelled here and nowhere else.
const (
	accessCookie = "__Host-gatehouse"
	handleCookie = "__Host-gatehouse-session"
	deviceCookie = "__Host-gatehouse-device"
	loginCookie  = "__Host-gatehouse-login"
)

var cookieNames = [...]string{accessCookie, handleCookie, deviceCookie, loginCookie}

const (
	// MaxCookies is how many cookies a request may carry; more are refused before they are looked at.
	MaxCookies = 1000
	// DeviceLifetime is how long a browser keeps the device cookie.
	DeviceLifetime = 180 * 24 * time.Hour
)

// jar is the cookies of ours in a request.
type jar struct {
	values [len(cookieNames)]string
	held   [len(cookieNames)]bool
}

func (j *jar) access() (string, bool) { return j.values[0], j.held[0] }
func (j *jar) handle() string         { return j.values[1] }
func (j *jar) device() string         { return j.values[2] }

// readCookies finds our cookies in the Cookie lines without parsing the others; names are matched exactly, as browsers do
// (RFC 6265bis, section 5.8.3). It returns ErrBadRequest for more than MaxCookies and ErrDuplicate. Values are taken as they
// stand: tokens and handles have one spelling, so a quoted or padded one dies where it is verified.
func readCookies(lines []string) (jar, error) {
	var j jar
	count := 0
	for _, line := range lines {
		count += strings.Count(line, ";") + 1
	}
	if count > MaxCookies {
		return jar{}, fmt.Errorf("%d cookies: %w", count, ErrBadRequest)
	}
	for _, line := range lines {
		for len(line) > 0 {
			var pair string
			pair, line, _ = strings.Cut(line, ";")
			name, value, _ := strings.Cut(pair, "=")
			i := cookieIndex(strings.Trim(name, " \t"))
			if i < 0 {
				continue
			}
			if j.held[i] {
				return jar{}, fmt.Errorf("%s: %w", cookieNames[i], ErrDuplicate)
			}
			j.values[i], j.held[i] = strings.Trim(value, " \t"), true
		}
	}
	return j, nil
}

func cookieIndex(name string) int {
	if !strings.HasPrefix(name, accessCookie) { // the shortest name begins all others
		return -1
	}
	for i, own := range cookieNames {
		if name == own {
			return i
		}
	}
	return -1
}

// CheckCookies returns ErrBadRequest if a request carries more than MaxCookies, and ErrDuplicate if one of ours is there twice.
func CheckCookies(r *http.Request) error {
	_, err := readCookies(r.Header["Cookie"])
	return err
}

// ReadDevice returns the device cookie's value; "" if there is none or CheckCookies would refuse the request.
func ReadDevice(r *http.Request) string { return read(r, 2) }

// ReadLogin returns the login cookie's value; "" if there is none or CheckCookies would refuse the request.
func ReadLogin(r *http.Request) string { return read(r, 3) }

// ReadHandle returns the handle for Grant.FormerHandle; "" if there is none or CheckCookies would refuse the request. It is
// not checked.
func ReadHandle(r *http.Request) string { return read(r, 1) }

func read(r *http.Request, i int) string {
	j, err := readCookies(r.Header["Cookie"])
	if err != nil {
		return ""
	}
	return j.values[i]
}

// DeviceCookie sets the device cookie for DeviceLifetime.
func DeviceCookie(value string) *http.Cookie {
	return newCookie(deviceCookie, value, int(DeviceLifetime/time.Second))
}

// LoginCookie sets the login cookie, which ends with the browser.
func LoginCookie(value string) *http.Cookie { return newCookie(loginCookie, value, 0) }

// ClearCookies takes the access token and the handle from the browser. The device stays known and the login cookie is not
// touched.
func ClearCookies() []*http.Cookie {
	return []*http.Cookie{newCookie(accessCookie, "", -1), newCookie(handleCookie, "", -1)}
}

// ClearDeviceCookie takes the device cookie from the browser.
func ClearDeviceCookie() *http.Cookie { return newCookie(deviceCookie, "", -1) }

// ClearLoginCookie takes the login cookie from the browser.
func ClearLoginCookie() *http.Cookie { return newCookie(loginCookie, "", -1) }

// newCookie gives every cookie the same attributes; none depends on the request, so no header of a client can take one away.
// maxAge is in seconds: 0 ends with the browser, negative clears.
func newCookie(name, value string, maxAge int) *http.Cookie {
	return &http.Cookie{
		Name: name, Value: value, Path: "/", MaxAge: maxAge,
		Secure: true, HttpOnly: true, SameSite: http.SameSiteLaxMode,
	}
}
