// SPDX-License-Identifier: MIT
pragma solidity ^0.8.30;

import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";
import {ERC20Permit} from "@openzeppelin/contracts/token/ERC20/extensions/ERC20Permit.sol";
import {ERC20Votes} from "@openzeppelin/contracts/token/ERC20/extensions/ERC20Votes.sol";
import {Nonces} from "@openzeppelin/contracts/utils/Nonces.sol";

/// @title The token that pays for training, is staked, and votes.
/// @dev Invariant: the supply is 10^9 tokens of 10^18 base units, minted once; every amount therefore fits in 90
/// bits, and the network's uint96 amounts never overflow. Source: PoT 2.5 (stakes), 3.4 (votes).
contract TrainingToken is ERC20, ERC20Permit, ERC20Votes {
    constructor(address holder) ERC20("DTN Training Token", "TRAIN") ERC20Permit("DTN Training Token") {
        _mint(holder, 10 ** 9 * 10 ** 18);
    }

    /// @notice Votes are counted in time, not blocks, whose rate differs between chains (ERC-6372).
    function clock() public view override returns (uint48) {
        return uint48(block.timestamp);
    }

    /// @notice The machine-readable name of that clock (ERC-6372).
    // solhint-disable-next-line func-name-mixedcase
    function CLOCK_MODE() public pure override returns (string memory) {
        return "mode=timestamp";
    }

    /// @notice The next nonce of `owner` for permits and for delegation by signature.
    function nonces(address owner) public view override(ERC20Permit, Nonces) returns (uint256) {
        return super.nonces(owner);
    }

    function _update(address from, address to, uint256 value) internal override(ERC20, ERC20Votes) {
        super._update(from, to, value);
    }
}
