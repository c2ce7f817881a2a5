// Package pagestest holds the tests of the pages in real Chromium: each page in its states, in light and dark, from 320 pixels to
// wide, at 200 %, without scripts, with axe-core over it. `make screenshots` runs them to draw pictures of every page.
package pagestest
