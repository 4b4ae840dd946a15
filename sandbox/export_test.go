package sandbox

var Beside = beside
