<?php
// hello: answers with the token of its query.
header('Content-Type: application/json');
echo json_encode(['token' => $_GET['t'] ?? '']), "\n";
