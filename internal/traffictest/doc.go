// Package traffictest holds the tests of what only the program in a process of its own shows about traffic: that its memory stays flat
// while gigabytes pass, how many idle WebSockets it holds, and that they are cut when their session ends. GATEHOUSE_PROVE=1 moves
// gigabytes and opens as many WebSockets as the machine's limit of open files allows, and at most 10,000.
package traffictest
