// SPDX-License-Identifier: MIT
pragma solidity ^0.8.30;

import {MessageHashUtils} from "@openzeppelin/contracts/utils/cryptography/MessageHashUtils.sol";

/// @title The one EIP-712 domain of a network: "DTN", version "1", this chain, and the Parameters contract.
/// @dev Invariant: equal to the domain that Parameters reports through ERC-5267, whichever contract asks. OpenZeppelin's
/// EIP712 binds to the inheriting contract; orders, reports and ledger transactions must share one domain, so
/// that a wallet shows one name and an id is unique across the network. As there, the separator is cached and
/// built anew when the chain splits and its id changes.
abstract contract NetworkDomain {
    bytes32 private constant DOMAIN_TYPE =
        keccak256("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)");

    address private immutable _network;
    uint256 private immutable _cachedChainId;
    bytes32 private immutable _cachedSeparator;

    constructor(address parameters_) {
        _network = parameters_;
        _cachedChainId = block.chainid;
        _cachedSeparator = _separatorOf(parameters_);
    }

    /// @notice The domain separator that every signed thing of this network carries.
    function domainSeparator() public view returns (bytes32) {
        return block.chainid == _cachedChainId ? _cachedSeparator : _separatorOf(_network);
    }

    function _digest(bytes32 structHash) internal view returns (bytes32) {
        return MessageHashUtils.toTypedDataHash(domainSeparator(), structHash);
    }

    function _separatorOf(address network) private view returns (bytes32) {
        return keccak256(abi.encode(DOMAIN_TYPE, keccak256("DTN"), keccak256("1"), block.chainid, network));
    }
}
